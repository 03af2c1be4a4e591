"""Attention on a GPU: paged KV cache, rope and append, grouped-query and latent attention."""
