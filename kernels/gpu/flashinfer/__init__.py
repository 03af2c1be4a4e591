"""Attention by flashinfer, where it is installed and has kernels for a model's heads."""
