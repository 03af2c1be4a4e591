"""CUDA graphs: capture and replay of a pass, its inputs, and its synchronisation with the host."""
