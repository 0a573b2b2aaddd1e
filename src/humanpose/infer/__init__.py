"""From pictures to joints: runtimes, detector, estimator, pipeline. No torch."""
