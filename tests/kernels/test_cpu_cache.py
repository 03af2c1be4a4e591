"""The memory of a KV cache on the CPU: reserved whole, and touched as the conversation grows."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import numpy as np
import pytest

from kernels.ops import CacheKind, CacheShape, Rope
from tests.kernels.cpu_cases import cpu_ops, normal

PAGES = 2048
NO_ROPE = Rope((0.0,), False)
HUGE_PAGE = 2 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize("kind", ["f16", "q8"])
def test_memory_is_touched_when_it_is_used(kind: CacheKind) -> None:
    ops, shape = cpu_ops(), CacheShape(2, PAGES, 32, 8, 128, 128, kind)
    q, k, v = (normal(seed, 512, 8 * 128) for seed in range(3))
    pages = np.arange(PAGES, dtype=np.int32)
    gc.collect()  # what others left must not go meanwhile
    ctypes.CDLL(None).malloc_trim(0)
    before = resident()
    cache = ops.kv_cache(shape)
    assert cache.keys.nbytes + cache.values.nbytes > 256 << 20
    assert resident() - before < HUGE_PAGE
    stretches = (
        2 * shape.layers
    )  # keys and values of each layer, whose last huge page is touched whole
    for start in (0, 512, 1024):
        for layer in range(shape.layers):
            ops.rope_append(q.copy(), k.copy(), v, None, 1e-6, NO_ROPE, cache, layer, pages, start)
        used = (start + 512) * shape.bytes_per_position
        grown = resident() - before
        assert 0.9 * used < grown < 1.1 * used + (stretches + 4) * HUGE_PAGE
    del cache
    assert resident() - before < 8 * HUGE_PAGE


def test_pages_have_a_size_that_tiles_are_made_of() -> None:
    with pytest.raises(ValueError, match="pages of 24 positions"):
        cpu_ops().kv_cache(CacheShape(1, 2, 24, 1, 32, 32))
