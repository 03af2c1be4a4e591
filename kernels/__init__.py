"""The op set: `reference` (float32 torch, the oracle) and `cpu` (C++)."""
