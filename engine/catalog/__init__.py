"""The catalogue of models that are known before any download, and the sizes of their tensors."""
