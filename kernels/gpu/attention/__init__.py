"""Attention on a GPU: paged KV cache, RoPE and append, grouped-query and latent attention."""
