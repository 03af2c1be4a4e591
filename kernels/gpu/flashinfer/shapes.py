"""The heads that flashinfer has kernels for: numbers without torch, which a memory plan reads too."""

from __future__ import annotations

HEAD_SIZES = frozenset({64, 128, 256})
"""Grouped-query heads, keys and values alike; others take the Triton kernel."""
LATENT, LATENT_ROPE = 512, 64
"""Features of an absorbed MLA row."""


def supports(key: int, value: int) -> bool:
    """Whether flashinfer has kernels for grouped-query heads of these sizes."""
    return key == value and key in HEAD_SIZES
