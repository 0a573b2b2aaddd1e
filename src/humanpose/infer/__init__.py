"""Inference: runtimes, detector, estimator, pipeline. No torch."""
