"""The op set: `reference` (float32 torch, the oracle), `cpu` (C++), `gpu` (Triton), `hybrid` (both)."""
