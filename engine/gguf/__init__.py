"""GGUF files, read within bounds and written for tests and benchmarks."""
