"""Where frames go: context managers with `write(frame)`.

Leaving one normally completes its file; leaving it by an error leaves nothing under its name.
"""
