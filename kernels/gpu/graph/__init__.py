"""CUDA graphs: capture and replay of a pass, its inputs, and the host experts inside of it."""
