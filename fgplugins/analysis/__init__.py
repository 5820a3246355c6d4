"""Counting and timing: operations, memory, seconds, and what runs on which backbone."""
