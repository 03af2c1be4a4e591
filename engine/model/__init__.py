"""The forward pass, written once over an op set: layers, weights, transformer."""
