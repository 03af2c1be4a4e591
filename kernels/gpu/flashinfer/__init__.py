"""Attention by flashinfer, where it is installed and has the head size."""
