"""`make bench`: graphc beside NumPy, PyTorch, JAX and PyTensor on one machine. ``python -m benchmarks --help``."""
