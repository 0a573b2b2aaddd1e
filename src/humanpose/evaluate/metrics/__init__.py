"""Scores of predictions against truth: plain functions on arrays, no torch."""
