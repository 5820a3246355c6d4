"""Comparing the methods on one's own images: trainings of each, repeated, and what follows.

A comparison is a folder. A cell of it is one training and one test, a process of its own; running
the comparison again finishes what is missing. There is no state but the folder.
"""
