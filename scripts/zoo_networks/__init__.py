"""Network architectures of the benchmark zoo, written in PyTorch: one module per family."""
