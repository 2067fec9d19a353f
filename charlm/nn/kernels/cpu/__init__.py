"""charlm.nn.kernels.cpu."""
