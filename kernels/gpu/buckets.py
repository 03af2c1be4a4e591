"""For how many new tokens attention is planned, compiled and given scratch memory.

A pass of any number of tokens takes the next larger plan, so that a load can try them all: nothing is
compiled or allocated in the middle of a conversation. Needs neither torch nor a GPU.
"""

from __future__ import annotations

BUCKETS = (1, 8, 32, 128, 512)
"""The last is a chunk of a prompt (`engine.footprint.CHUNK`)."""


def bucket(tokens: int) -> int:
    """The bucket that a pass of so many tokens is in; above the last one, a power of two."""
    return next((size for size in BUCKETS if tokens <= size), 1 << (tokens - 1).bit_length())
