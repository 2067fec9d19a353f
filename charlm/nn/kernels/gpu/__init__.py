"""charlm.nn.kernels.gpu."""
