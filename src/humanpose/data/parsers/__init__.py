"""Parsers of foreign files, run in child processes: NumPy and the file's own library only.

Every import here is time that a reader waits for its child.
"""
