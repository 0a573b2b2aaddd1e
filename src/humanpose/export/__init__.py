"""Export a network to ONNX, quantise it to INT8, and check its accuracy."""
