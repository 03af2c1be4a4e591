"""Rope of queries, and keys and values on their way to the cache, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.attention.append import append_heads, append_latent
from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.kv_cache import Rows
from kernels.gpu.attention.rope import rope_table, rotate
from kernels.ops import CacheShape, HeadNorms, Rope, Tensor
from kernels.quants import BY_NAME
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal

EPS = 1e-5
FLOAT = 2e-6
HALF = 6e-4
REFERENCE = ReferenceOps()


def weight(values: Any) -> Any:
    data = values.cpu().numpy()
    raw = data.reshape(-1).view(np.uint8)
    return REFERENCE.vector(Tensor("norm", BY_NAME["F32"], data.shape, raw))


# Two sequences whose new tokens end at a page edge and one past it, then a padding token.
PAGE, LENGTHS, QUERIES = 4, (8, 5), (3, 2)
TOKENS = sum(QUERIES) + 1
TABLES = [np.array(row, np.int32) for row in ([5, 1], [2, 6])]


def filled_batch() -> Batch:
    batch = Batch.allocate(3, 3, DEVICE)
    batch.write(LENGTHS, QUERIES, TABLES, PAGE)
    return batch


def rope(pairs: int, interleaved: bool, offset: int = 0) -> Rope:
    frequencies = tuple((10000.0 ** (-np.arange(pairs) / pairs)).tolist())
    return Rope(frequencies, interleaved, offset, 1.25)


def zeros(*shape: int) -> Any:
    return torch.zeros(shape, dtype=torch.float16, device=DEVICE)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "key", "value", "pairs", "offset"), [
    (3, 1, 16, 16, 8, 0),
    (5, 1, 20, 12, 4, 8),
    (2, 2, 10, 6, 3, 2),
])  # fmt: skip
@pytest.mark.parametrize("normed", [False, True])
def test_heads_are_normed_rotated_and_stored(
    interleaved: bool,
    heads: int,
    kv_heads: int,
    key: int,
    value: int,
    pairs: int,
    offset: int,
    normed: bool,
) -> None:
    q, k, v = (
        normal(1, TOKENS, heads, key),
        normal(2, TOKENS, kv_heads, key),
        normal(3, TOKENS, kv_heads, value),
    )
    norms = (normal(4, key), normal(5, key)) if normed else (None, None)
    rotated = rope(pairs, interleaved, offset)
    keys, values = zeros(8, PAGE, kv_heads, key), zeros(8, PAGE, kv_heads, value)
    table, batch, got, q_norm, k_norm = (
        rope_table(rotated, DEVICE),
        filled_batch(),
        q.clone(),
        *norms,
    )
    rotate(got, q_norm, EPS, table, offset, batch)
    append_heads(k, v, k_norm, normed, EPS, table, batch, Rows(keys), Rows(values))

    cache = REFERENCE.kv_cache(CacheShape(1, 8, PAGE, kv_heads, key, value))
    weights = HeadNorms(*map(weight, norms), True) if normed else None
    begin = 0
    for length, new, pages in zip(LENGTHS, QUERIES, TABLES, strict=True):
        parts = [x[begin : begin + new].flatten(1).cpu() for x in (q.clone(), k.clone(), v)]
        REFERENCE.rope_append(*parts, weights, EPS, rotated, cache, 0, pages, length - new)
        assert error(got[begin : begin + new].flatten(1), parts[0]) < FLOAT
        begin += new
    assert error(keys, cache.keys[0]) < HALF
    assert error(values, cache.values[0]) < HALF
    assert torch.equal(got[begin:], q[begin:])  # padding


@pytest.mark.parametrize("interleaved", [False, True])
def test_latent_rows_are_normed_rotated_and_stored(interleaved: bool) -> None:
    heads, nope, pairs, latent = 3, 12, 4, 40
    q, kv, norm = (
        normal(1, TOKENS, heads, nope + 2 * pairs),
        normal(2, TOKENS, latent + 2 * pairs),
        normal(3, latent),
    )
    rotated, got = rope(pairs, interleaved, nope), q.clone()
    cache, table, batch = (
        zeros(8, PAGE, 1, latent + 2 * pairs),
        rope_table(rotated, DEVICE),
        filled_batch(),
    )
    rotate(got[..., nope:], None, EPS, table, 0, batch)
    append_latent(kv, norm, EPS, table, batch, Rows(cache))

    wanted = REFERENCE.kv_cache(CacheShape(1, 8, PAGE, 1, latent + 2 * pairs, 0))
    begin = 0
    for length, new, pages in zip(LENGTHS, QUERIES, TABLES, strict=True):
        part, row = q[begin : begin + new].flatten(1).cpu(), kv[begin : begin + new].cpu()
        part, start = part.clone(), length - new
        REFERENCE.latent_append(
            part, heads, row, weight(norm), EPS, rotated, wanted, 0, pages, start
        )
        assert error(got[begin : begin + new].flatten(1), part) < FLOAT
        begin += new
    assert error(cache, wanted.keys[0]) < HALF
    assert torch.equal(got[begin:], q[begin:])  # padding


@pytest.mark.parametrize("position", [65535, 1_000_000])
def test_angles_stay_exact_far_into_a_sequence(position: int) -> None:
    frequencies = (1.0, 0.7071, 1e-3)
    q = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], device=DEVICE).view(1, 1, 6)
    batch = Batch.allocate(1, 1, DEVICE)
    batch.lengths.fill_(position + 1)
    batch.offsets.copy_(torch.tensor([0, 1]))
    rotate(q, None, EPS, rope_table(Rope(frequencies, False), DEVICE), 0, batch)
    angles = position * np.array(frequencies)
    wanted = np.concatenate([np.cos(angles), np.sin(angles)])
    assert np.abs(q.cpu().numpy().ravel() - wanted).max() < 1e-6


def test_what_does_not_fit_is_refused() -> None:
    q, k, cache = normal(1, 6, 1, 8), normal(2, 6, 2, 8), Rows(zeros(8, PAGE, 1, 8))
    table = rope_table(rope(4, False), DEVICE)
    with pytest.raises(ValueError, match="4 pairs from 2 of 8"):
        rotate(q, None, EPS, table, 2, filled_batch())
    with pytest.raises(ValueError, match="for"):
        append_heads(k, k, None, False, EPS, table, filled_batch(), cache, cache)
    apart, pair = normal(3, 6, 2, 16)[..., :8], Rows(zeros(8, PAGE, 2, 8))
    with pytest.raises(ValueError, match="apart"):
        append_heads(k, apart, None, False, EPS, table, filled_batch(), pair, pair)
    with pytest.raises(ValueError, match="without frequencies"):
        rope_table(Rope((), False), DEVICE)


def test_a_batch_refuses_what_its_pages_cannot_hold() -> None:
    batch = Batch.allocate(1, 2, DEVICE)
    pages = np.array([0, 1, 2], np.int32)
    for lengths, queries, row in (([9], [1], pages), ([3], [4], pages), ([5], [1], pages[:1])):
        with pytest.raises(ValueError, match="positions on"):
            batch.write(lengths, queries, [row], PAGE)
    with pytest.raises(ValueError, match="for a batch of 1"):
        batch.write([1, 1], [1, 1], [pages, pages], PAGE)
