"""Rope, append and attention over the paged cache, grouped-query and latent, against float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.ops import CacheKind, CacheShape, Floats, HeadNorms, Ints, Rope
from tests.kernels.cpu_cases import (
    ISAS,
    REFERENCE,
    cache_rows,
    cpu_ops,
    noise,
    normal,
    relative_error,
    tensor,
    torch_copy,
)

EPS = 1e-6
# Keys, values and weights are rounded to 14 bits; this is far below any mistake of positions or heads.
ROUNDING = 1e-6
# In 8 bits: a 254th of a block's largest number, even between -1/2 and 1/2 of it.
ROUNDING_OF_8_BITS = 1.5e-4


def rope(pairs: int, offset: int = 0, interleaved: bool = False, magnitude: float = 1.0) -> Rope:
    frequencies = 10000.0 ** (-np.arange(pairs) / max(pairs, 1))
    return Rope(tuple(frequencies.tolist()), interleaved, offset, magnitude)


def shuffled_pages(count: int) -> Ints:
    return np.random.default_rng(0).permutation(count).astype(np.int32)


def run_grouped(ops: Any, convert: Any, shape: CacheShape, heads: int, n: int, start: int) -> Any:
    """Prefill `start` positions in chunks of 50, then attend with n more; (q, output)."""
    length = start + n
    inputs = [
        normal(1, length, heads * shape.key),
        normal(2, length, shape.heads * shape.key),
        normal(3, length, shape.heads * shape.value),
    ]
    norms = HeadNorms(*(ops.vector(tensor(normal(seed, shape.key))) for seed in (4, 5)))
    cache = ops.kv_cache(shape)
    pages = shuffled_pages(shape.pages)
    with_rope = rope(shape.key // 4, offset=shape.key // 4)
    q = None
    for begin in [*range(0, start, 50), start]:
        end = length if begin == start else min(begin + 50, start)
        q, k, v = (convert(part[begin:end].copy()) for part in inputs)
        ops.rope_append(q, k, v, norms, EPS, with_rope, cache, 1, pages, begin)
    return q, ops.attention(q, heads, 0.7 / shape.key**0.5, cache, 1, pages, start)


@cache
def wanted_grouped(shape: CacheShape, heads: int, n: int, start: int) -> Any:
    return run_grouped(REFERENCE, torch_copy, shape, heads, n, start)


def compare_grouped(ops: CpuOps, shape: CacheShape, heads: int, n: int, start: int) -> None:
    q, got = run_grouped(ops, lambda x: x, shape, heads, n, start)
    q_wanted, wanted = wanted_grouped(shape, heads, n, start)
    assert relative_error(q, q_wanted) < 1e-6
    assert noise(got, wanted) < (ROUNDING if shape.kind == "f16" else ROUNDING_OF_8_BITS)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("page_size", [16, 32])
@pytest.mark.parametrize(
    ("n", "start"),
    [
        *((1, 0), (1, 14), (1, 15), (1, 16), (1, 31), (1, 32), (2, 0), (3, 15), (17, 0)),
        *((20, 13), (40, 0), (1, 300), (9, 121), (33, 260)),
    ],
)
def test_attention_at_page_edges(isa: str, page_size: int, n: int, start: int) -> None:
    shape = CacheShape(2, 24, page_size, heads=2, key=64, value=64)
    compare_grouped(cpu_ops(2, isa), shape, 8, n, start)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        *((1, 64, 64), (5, 80, 80), (7, 128, 128), (8, 256, 256), (16, 24, 20), (1, 128, 128)),
        *((8, 64, 64), (5, 128, 128), (16, 80, 80), (7, 256, 256), (3, 192, 128), (8, 512, 512)),
    ],
)
def test_attention_of_every_group_and_head_size(isa: str, group: int, key: int, value: int) -> None:
    shape = CacheShape(2, 5, 16, heads=3, key=key, value=value)
    for n, start in ((1, 37), (7, 30)):
        compare_grouped(cpu_ops(2, isa), shape, 3 * group, n, start)


def run_together(ops: Any, convert: Any, sizes: tuple[int, int]) -> Any:
    """Norms of these many heads' features of 6 query and 2 key heads; (q, output)."""
    shape, pages = CacheShape(1, 4, 16, heads=2, key=24, value=24), shuffled_pages(4)
    q, k, v = (convert(normal(seed, 9, 24 * heads)) for seed, heads in ((1, 6), (2, 2), (3, 2)))
    norms = HeadNorms(
        *(ops.vector(tensor(normal(seed, 24 * heads))) for seed, heads in enumerate(sizes, 4))
    )
    cache = ops.kv_cache(shape)
    ops.rope_append(q, k, v, norms, EPS, rope(5), cache, 0, pages, 0)
    return q, ops.attention(q, 6, 0.2, cache, 0, pages, 0)


@pytest.mark.parametrize("isa", ISAS)
def test_norms_may_be_of_all_heads_together(isa: str) -> None:
    q, got = run_together(cpu_ops(2, isa), lambda x: x, (6, 2))
    q_wanted, wanted = run_together(REFERENCE, torch_copy, (6, 2))
    assert relative_error(q, q_wanted) < 1e-6
    assert noise(got, wanted) < ROUNDING
    by_head, _ = run_together(REFERENCE, torch_copy, (1, 1))
    assert relative_error(q, by_head) > 0.1
    for sizes in ((6, 1), (1, 2), (2, 2)):
        with pytest.raises(ValueError, match="wanted a vector"):
            run_together(cpu_ops(2, isa), lambda x: x, sizes)


@pytest.mark.parametrize("isa", ISAS)
def test_values_are_normed_and_may_be_the_keys(isa: str) -> None:
    shape, pages = CacheShape(1, 3, 16, heads=2, key=40, value=40), shuffled_pages(3)
    caches = []
    for ops, convert in ((cpu_ops(2, isa), np.copy), (REFERENCE, torch_copy)):
        q, k = convert(normal(1, 21, 80)), convert(normal(2, 21, 80))
        norms = HeadNorms(*(ops.vector(tensor(normal(seed, 40))) for seed in (3, 4)), True)
        cache = ops.kv_cache(shape)
        ops.rope_append(q, k, k, norms, EPS, rope(20), cache, 0, pages, 5)
        caches.append(cache)
    assert noise(cache_rows(caches[0]), caches[1].keys) < ROUNDING
    assert noise(cache_rows(caches[0], values=True), caches[1].values) < ROUNDING


@pytest.mark.parametrize("isa", ISAS)
def test_attention_over_a_long_cache(isa: str) -> None:
    shape = CacheShape(2, 130, 32, heads=4, key=128, value=128)
    compare_grouped(cpu_ops(2, isa), shape, 32, 1, 4099)


@pytest.mark.parametrize("isa", ISAS)
def test_attention_survives_scores_that_would_overflow(isa: str) -> None:
    ops = cpu_ops(2, isa)
    shape = CacheShape(1, 4, 16, heads=1, key=16, value=16)
    outs = []
    for target, convert in ((ops, lambda x: x), (REFERENCE, torch_copy)):
        cache, pages = target.kv_cache(shape), shuffled_pages(4)
        q, k, v = (convert(normal(seed, 50, 16, scale=60.0)) for seed in (1, 2, 3))
        target.rope_append(q, k, v, None, EPS, rope(0), cache, 0, pages, 0)
        outs.append(target.attention(q, 1, 1.0, cache, 0, pages, 0))
    assert np.isfinite(outs[0]).all()
    assert noise(*outs) < 1e-3


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("pairs", "offset"), [(32, 0), (13, 3), (8, 48), (1, 0), (20, 24)])
def test_rope_rotates_queries_and_keys(
    isa: str, interleaved: bool, pairs: int, offset: int
) -> None:
    ops = cpu_ops(2, isa)
    shape = CacheShape(1, 3, 16, heads=2, key=64, value=8)
    with_rope = rope(pairs, offset, interleaved, magnitude=1.3)
    caches, queries = [], []
    for target, convert in ((ops, lambda x: x), (REFERENCE, torch_copy)):
        cache = target.kv_cache(shape)
        q, k, v = convert(normal(1, 9, 256)), convert(normal(2, 9, 128)), convert(normal(3, 9, 16))
        target.rope_append(q, k, v, None, EPS, with_rope, cache, 0, shuffled_pages(3), 29)
        caches.append(cache)
        queries.append(q)
    assert relative_error(*queries) < 1e-6
    assert relative_error(cache_rows(caches[0]), caches[1].keys) < 1e-3
    assert relative_error(cache_rows(caches[0], values=True), caches[1].values) < 2e-4


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("page_size", "group", "key", "value"),
    [(16, 5, 64, 64), (32, 8, 128, 128), (64, 1, 256, 128), (128, 7, 96, 32)],
)
def test_attention_over_a_cache_in_8_bits(
    isa: str, page_size: int, group: int, key: int, value: int
) -> None:
    shape = CacheShape(2, 320 // page_size + 1, page_size, 2, key, value, "q8")
    for n, start in ((1, 0), (1, 300), (33, 260)):
        compare_grouped(cpu_ops(2, isa), shape, 2 * group, n, start)


@pytest.mark.parametrize("isa", ISAS)
def test_8_bits_are_those_of_ggml(isa: str) -> None:
    """A block's largest number becomes 127 or -127, and all are within half a step."""
    ops, shape = cpu_ops(2, isa), CacheShape(1, 2, 32, 1, 64, 64, "q8")
    cache, pages = ops.kv_cache(shape), shuffled_pages(2)
    k, v = normal(2, 40, 64, scale=3.0), normal(3, 40, 64)
    ops.rope_append(normal(1, 40, 64), k, v, None, EPS, rope(0), cache, 0, pages, 0)
    for given, got in ((k, cache_rows(cache)), (v, cache_rows(cache, values=True))):
        blocks = given.reshape(40, 2, 32)
        rows = got[0, pages].reshape(64, 2, 32)[:40]
        steps = np.abs(blocks).max(-1, keepdims=True) / 127
        assert (np.abs(rows - blocks) <= 0.502 * steps).all()
        np.testing.assert_allclose(np.abs(rows).max(-1), np.abs(blocks).max(-1), rtol=1e-3)
    assert cache.keys.nbytes + cache.values.nbytes == 2 * 32 * shape.bytes_per_position


def run_latent(
    ops: Any, convert: Any, heads: int, n: int, start: int, kinds: Any, cached: CacheKind = "f16"
) -> Any:
    nope, rotated, latent, value = 64, 32 if cached == "q8" else 16, 96, 40
    shape = CacheShape(2, 24, 16, heads=1, key=latent + rotated, value=0, kind=cached)
    cache, pages = ops.kv_cache(shape), shuffled_pages(24)
    with_rope = rope(rotated // 2, offset=nope, interleaved=True)
    norm = ops.vector(tensor(normal(1, latent)))
    k_b = ops.matrix(tensor(normal(2, heads, latent, nope, scale=0.1), kinds[0]))
    v_b = ops.matrix(tensor(normal(3, heads, value, latent, scale=0.1), kinds[1]))
    q = None
    for begin, end in ((0, start), (start, start + n)):
        if begin == end:
            continue
        q = convert(normal(4, start + n, heads * (nope + rotated))[begin:end].copy())
        kv = convert(normal(5, start + n, latent + rotated)[begin:end].copy())
        ops.latent_append(q, heads, kv, norm, EPS, with_rope, cache, 1, pages, begin)
    return q, ops.latent_attention(q, heads, 0.11, k_b, v_b, cache, 1, pages, start)


@cache
def wanted_latent(heads: int, n: int, start: int, kinds: tuple[str, str]) -> Any:
    return run_latent(REFERENCE, torch_copy, heads, n, start, kinds)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("heads", [1, 3, 16, 40])
@pytest.mark.parametrize(("n", "start"), [(1, 0), (1, 15), (1, 16), (1, 200), (5, 14), (40, 250)])
def test_latent_attention(isa: str, heads: int, n: int, start: int) -> None:
    kinds = ("F16", "F32")
    q, got = run_latent(cpu_ops(2, isa), lambda x: x, heads, n, start, kinds)
    q_wanted, wanted = wanted_latent(heads, n, start, kinds)
    assert relative_error(q, q_wanted) < 1e-6
    assert noise(got, wanted) < ROUNDING


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("n", "start"), [(1, 15), (1, 200), (40, 250)])
def test_latent_attention_over_a_cache_in_8_bits(isa: str, n: int, start: int) -> None:
    place = 16, n, start, ("F16", "F32"), "q8"
    _, got = run_latent(cpu_ops(2, isa), lambda x: x, *place)
    _, wanted = run_latent(REFERENCE, torch_copy, *place)
    assert noise(got, wanted) < ROUNDING_OF_8_BITS


@pytest.mark.parametrize("kinds", [("Q8_0", "Q4_0"), ("Q5_1", "Q8_0"), ("BF16", "IQ4_NL")])
@pytest.mark.parametrize("n", [1, 12])
def test_latent_attention_with_quantised_projections(kinds: tuple[str, str], n: int) -> None:
    _, got = run_latent(cpu_ops(), lambda x: x, 16, n, 20, kinds)
    _, wanted = run_latent(REFERENCE, torch_copy, 16, n, 20, kinds)
    assert noise(got, wanted) < 2e-4


def test_copied_page_attends_like_its_source() -> None:
    ops = cpu_ops()
    shape = CacheShape(2, 4, 16, heads=1, key=32, value=32)
    cache = ops.kv_cache(shape)
    q: Floats = normal(1, 20, 64)
    pages = np.array([2, 0, 1], dtype=np.int32)
    for layer in (0, 1):
        ops.rope_append(
            q, normal(2, 20, 32), normal(3, 20, 32), None, EPS, rope(16), cache, layer, pages, 0
        )
    ops.copy_page(cache, 0, 3)
    copied = np.array([2, 3, 1], dtype=np.int32)
    for layer in (0, 1):
        np.testing.assert_array_equal(
            ops.attention(q, 2, 0.2, cache, layer, pages, 0),
            ops.attention(q, 2, 0.2, cache, layer, copied, 0),
        )
