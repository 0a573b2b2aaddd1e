"""What child processes run on foreign tables: NumPy and the file's own library, nothing else.

Every import here is time that a reader waits for its child.
"""
