"""How fast this machine reads memory: the limit of decoding, measured.

Decoding reads every active weight once a token, so bytes a token times tokens a second cannot
exceed it. The limit drifts on shared machines: measure it together with what it is compared to.
"""

from __future__ import annotations

import ctypes
from functools import cache

from engine.errors import MemoryShortError

BUFFER = 512 << 20
"""Bytes read in a round: many times the largest cache of a desktop."""


@cache
def _library() -> ctypes.CDLL:
    from kernels.cpu.build import build

    library = ctypes.CDLL(str(build()))
    library.kt_read_limit.restype = ctypes.c_double
    library.kt_read_limit.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_double]
    return library


def read_limit(threads: int, seconds: float = 0.3, buffer: int = BUFFER) -> float:
    """GB/s (10^9 bytes) that `threads` pinned threads read from memory, over about `seconds`.

    Raises `MemoryShortError` when the buffer is not to be had.
    """
    limit = float(_library().kt_read_limit(buffer, threads, seconds))
    if limit <= 0:
        raise MemoryShortError(
            "The memory-read limit cannot be measured",
            f"{buffer >> 20} MB of memory are not to be had",
            "Close other programs",
        )
    return limit
