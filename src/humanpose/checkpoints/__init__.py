"""Weights in and out: safetensors with a ModelSpec inside, and readers of foreign files."""
