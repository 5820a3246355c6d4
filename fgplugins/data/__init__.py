"""Data that is made or read without a zoo: numpy arrays and lists of files."""
