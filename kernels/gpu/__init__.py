"""GPU kernels: weights in their GGUF types, on the device. Importing this package imports nothing."""
