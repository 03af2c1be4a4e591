"""Memory bandwidth: how fast this machine reads RAM, measured.

Decoding reads every active weight once a token, so bytes a token times tokens a second cannot
exceed it. It drifts on shared machines: measure it together with what it is compared to.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache

from engine.errors import MemoryShortError

BUFFER = 512 << 20
"""Bytes read in a round: many times the largest cache of a desktop."""
MEASURE_SECONDS = 2.0
"""Measuring the reading speed takes at most about this long."""
ROUND_SECONDS = 0.1
QUICK_BUFFER = 256 << 20
"""Bytes read in a round: more than the caches of a desktop, few enough to be touched quickly."""


@cache
def _library() -> ctypes.CDLL:
    from kernels.cpu.build import build

    library = ctypes.CDLL(str(build()))
    library.kt_memory_bandwidth.restype = ctypes.c_double
    library.kt_memory_bandwidth.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_double]
    return library


def read_bandwidth(threads: int, seconds: float = 0.3, buffer: int = BUFFER) -> float:
    """GB/s (10^9 bytes) that `threads` pinned threads read from memory, over about `seconds`.

    Raises `MemoryShortError` when the buffer is not to be had.
    """
    limit = float(_library().kt_memory_bandwidth(buffer, threads, seconds))
    if limit <= 0:
        raise MemoryShortError(
            "The memory bandwidth cannot be measured",
            f"{buffer >> 20} MB of memory are not to be had",
            "Close other programs",
        )
    return limit


def read_speeds(cores: int) -> tuple[tuple[tuple[int, float], ...], list[str]]:
    """(threads, GB/s) from one thread to one a core, within `MEASURE_SECONDS`; and notes.

    All cores are measured first, since that is what decoding uses; then one, then what is between
    as long as there is time.
    """
    from kernels.cpu.build import BuildError, library_path

    if not library_path().exists():
        return (), ["The memory's speed is not measured: our CPU kernels are not built"]
    between = [count for count in (2, 4, 8, 16, 32, 64) if count < cores]
    speeds: dict[int, float] = {}
    started = time.perf_counter()
    slowest = 0.0
    try:
        for count in dict.fromkeys([cores, 1, *reversed(between)]):
            begun = time.perf_counter()
            if speeds and begun - started + slowest > MEASURE_SECONDS:
                break
            speeds[count] = read_bandwidth(count, ROUND_SECONDS, QUICK_BUFFER)
            slowest = max(slowest, time.perf_counter() - begun)
    except (MemoryShortError, BuildError, OSError) as error:
        return tuple(sorted(speeds.items())), [f"The memory's speed is not measured: {error}"]
    return tuple(sorted(speeds.items())), []
