"""Read weights files of other frameworks: Caffe, TensorFlow, OpenPose pickles, PyTorch."""
