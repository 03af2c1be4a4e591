"""The op set on a GPU, in Triton, with weights in their GGUF types. The package imports nothing."""
