"""A new token in one launch, against what it stands for: rotate and append, then attend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.attention.append import rotate_and_append
from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.decode import NewToken, decode, decodes
from kernels.gpu.attention.grouped import attention
from kernels.gpu.attention.kv_cache import Rows
from kernels.gpu.attention.plan import plan_attention
from kernels.gpu.attention.rope import rope_table
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.gpu_ops import GpuOps
from kernels.ops import CacheShape, Rope
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal, unset

# The interpreter says when a split holds nothing: the logarithm of 0 is meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
PAGE, PAGES, EPS = 4, 24, 1e-6
SAME = 1e-5
"""The same numbers in another order: norms of heads are added up across more threads."""


def cache(kind: str, kv_heads: int, features: int, ring: int = 0) -> Rows:
    """What earlier positions left in all pages."""
    filled = normal(7, PAGES, PAGE, kv_heads, features)
    if kind == "f16":
        return Rows(filled.half(), ring=ring)
    scales = normal(8, PAGES, PAGE, kv_heads, features // 32, scale=0.01).abs().half()
    return Rows((filled * 30).clamp(-127, 127).to(torch.int8), scales, ring)


def copy(rows: Rows) -> Rows:
    scales = None if rows.scales is None else rows.scales.clone()
    return Rows(rows.numbers.clone(), scales, rows.ring)


def both(
    length: int,
    heads: int = 8,
    kv_heads: int = 2,
    key: int = 64,
    value: int = 64,
    kind: str = "f16",
    splits: int = 3,
    normed: bool = True,
    interleaved: bool = False,
    pairs: int = 0,
    offset: int = 0,
    window: int = 0,
    sinks: bool = False,
) -> None:
    plan = plan_attention(1, 1, heads, kv_heads, key, value, 4 * length, 4, kind == "q8")
    plan = replace(plan, splits=splits, positions=16)
    assert decodes(plan)
    batch = Batch.allocate(1, PAGES, DEVICE)
    order = np.random.default_rng(0).permutation(PAGES).astype(np.int32)
    batch.write([length], [1], [order], PAGE)
    ring = PAGES if window else 0
    q, k, v = normal(1, 1, heads, key), normal(2, 1, kv_heads, key), normal(3, 1, kv_heads, value)
    norms = (normal(4, key), normal(5, key)) if normed else None
    frequencies = tuple(np.linspace(1.0, 0.001, pairs or key // 2))
    table = rope_table(Rope(frequencies, interleaved, offset), DEVICE)
    sink = normal(6, heads) if sinks else None
    made: list[tuple[Any, Rows, Rows]] = []
    for fused in (True, False):
        keys, values = cache(kind, kv_heads, key, ring), cache(kind, kv_heads, value, ring)
        out, scratch = unset(1, heads, value), Scratch.allocate(plan, 1, DEVICE)
        scratch.parts.fill_(float("nan"))
        rest = batch, 0.2, plan, scratch, out, window, sink
        if fused:
            token = NewToken(q.clone(), k, v, norms, normed, EPS, table, keys, values)
            decode(token, *rest)
            assert torch.equal(token.q, q)
        else:
            rotated = q.clone()
            rotate_and_append(rotated, k, v, norms, normed, EPS, table, batch, keys, values)
            attention(rotated, keys, values, *rest)
        made.append((out, keys, values))
    (got, keys, values), (wanted, *caches) = made
    assert error(got, wanted) < (SAME if not normed else 2e-3)  # queries are rounded to float16
    for one, other in zip((keys, values), caches, strict=True):
        for ours, theirs in ((one.numbers, other.numbers), (one.scales, other.scales)):
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert not torch.equal(keys.numbers, cache(kind, kv_heads, key).numbers)


@pytest.mark.parametrize("length", [1, 4, 5, 16, 17, 48, 49, 96])
def test_a_new_token_s_place_is_in_any_split(length: int) -> None:
    both(length)


@pytest.mark.parametrize(
    "case",
    [
        {"kind": "q8"},
        {"kind": "q8", "heads": 10, "key": 96, "value": 32},
        {"normed": False},
        {"interleaved": True},
        {"pairs": 12, "offset": 8},
        {"splits": 1},
        {"heads": 5, "kv_heads": 1, "key": 80, "value": 48},
        {"window": 20, "sinks": True, "normed": False},
        {"window": 20, "kind": "q8"},
    ],
    ids=str,
)
def test_a_new_token_is_normed_rotated_stored_and_attends(case: dict[str, Any]) -> None:
    both(37, **case)


def test_a_token_that_nobody_attends_with_is_appended_all_the_same() -> None:
    """Before its page is read, or the next token comes."""
    ops = GpuOps(DEVICE)
    rope, shape = Rope((0.5,) * 8, False), CacheShape(1, 2, 2, 1, 16, 16)
    one, other = (ops.kv_cache(shape) for _ in range(2))
    pages = np.array([1, 0], np.int32)
    for place in range(2):
        x = [normal(seed + place, 1, 16) for seed in (1, 5, 9)]
        for kv_cache, together in ((one, False), (other, True)):
            ops.rope_append(
                *(each.clone() for each in x), None, EPS, rope, kv_cache, 0, pages, place
            )
            if together:
                ops.attention(x[0].clone(), 1, 1.0, kv_cache, 0, pages, place)
    pages_read = [ops.read_page(kv_cache, 1) for kv_cache in (one, other)]
    assert pages_read[0].any() and np.array_equal(*pages_read)
