"""Laboratory: training jobs, ablation studies, benchmarks and the packing of data sets."""
