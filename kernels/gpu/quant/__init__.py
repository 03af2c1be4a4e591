"""Weights on a GPU in their GGUF types: packing, decoders, matrix products."""
