"""Data sets: readers of their original files, augmentation, and torch data sets."""
