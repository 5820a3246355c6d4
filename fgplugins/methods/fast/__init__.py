"""Cheaper forms of what the papers print, each exact: tests hold them to the printed ones."""
