"""Build a TensorRT plan from a derived model, on the GPU that will run it; needs trtexec and Python, nothing else."""
