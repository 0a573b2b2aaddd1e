"""Scores of networks and of prediction files against annotated data, and the report about them."""
