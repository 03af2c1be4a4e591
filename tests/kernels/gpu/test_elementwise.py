"""Norms, SwiGLU, the shared expert's gate, rope and appends, against float32 torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.batch import Batch
from kernels.gpu.elementwise import gated_add, rms_norm, swiglu
from kernels.gpu.rope import latent_append, rope_append, rope_table
from kernels.ops import CacheShape, Rope, Tensor
from kernels.quants import BY_NAME
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal, unset

EPS = 1e-5
FLOAT = 2e-6
HALF = 6e-4
REFERENCE = ReferenceOps()
# The interpreter says when exp overflows or a logit is no number; both are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def weight(values: Any) -> Any:
    data = values.cpu().numpy()
    raw = data.reshape(-1).view(np.uint8)
    return REFERENCE.vector(Tensor("norm", BY_NAME["F32"], data.shape, raw))


@pytest.mark.parametrize("features", [1, 5, 64, 100, 2048])
def test_norm_equals_the_reference(features: int) -> None:
    x, norm, out = normal(1, 3, features, scale=4), normal(2, features), unset(3, features)
    rms_norm(x, norm, EPS, out)
    assert error(out, REFERENCE.norm(x.cpu(), weight(norm), EPS)) < FLOAT


def test_norm_adds_to_the_residual_first_and_takes_strided_rows() -> None:
    wide, norm = normal(1, 3, 200), normal(2, 96)
    x, residual, out = wide[:, 50:146], normal(3, 3, 96), unset(3, 96, dtype=torch.float16)
    total = (x + residual).cpu()
    rms_norm(x, norm, EPS, out, residual)
    assert torch.equal(residual.cpu(), total)
    assert error(out, REFERENCE.norm(total, weight(norm), EPS)) < HALF


def test_norm_of_zeros_is_zero_and_in_place_is_allowed() -> None:
    x = torch.zeros(2, 40, device=DEVICE)
    rms_norm(x, normal(1, 40), EPS, x)
    assert torch.equal(x.cpu(), torch.zeros(2, 40))


@pytest.mark.parametrize("features", [3, 1408])
def test_swiglu_of_the_halves_of_one_product(features: int) -> None:
    both, out = normal(1, 4, 2 * features, scale=30), unset(4, features)
    gate, up = both[:, :features], both[:, features:]
    swiglu(gate, up, out)
    wanted = torch.nn.functional.silu(gate.cpu()) * up.cpu()
    assert error(out, wanted) < FLOAT


def test_shared_expert_is_added_by_its_gate() -> None:
    x, scaler, update, residual = (
        normal(s, *n) for s, n in enumerate([(3, 72), (72,), (3, 72), (3, 72)])
    )
    wanted = residual + update * (x @ scaler.view(-1, 1)).sigmoid()
    gated_add(x, scaler, update, residual)
    assert error(residual, wanted) < FLOAT


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = normal(1, 2, 8)
    for bad in (normal(1, 2, 9), normal(1, 3, 8), normal(1, 8, 2).T):
        with pytest.raises(ValueError, match="rows of shape"):
            rms_norm(x, normal(1, 8), EPS, bad)
    with pytest.raises(ValueError, match="a vector"):
        rms_norm(x, normal(1, 7), EPS, x)
    with pytest.raises(ValueError, match="at most 32768"):
        swiglu(*(torch.empty(1, 32769) for _ in range(3)))


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
def test_rope_append_equals_the_reference(
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
    norms = (normal(4, key), normal(5, key)) if normed else None
    turn = rope(pairs, interleaved, offset)
    keys, values, q_out = (
        zeros(8, PAGE, kv_heads, key),
        zeros(8, PAGE, kv_heads, value),
        unset(TOKENS, heads, key),
    )
    rope_append(q, k, v, norms, EPS, rope_table(turn, DEVICE), filled_batch(), keys, values, q_out)

    cache = REFERENCE.kv_cache(CacheShape(1, 8, PAGE, kv_heads, key, value))
    weights = None if norms is None else (weight(norms[0]), weight(norms[1]))
    begin = 0
    for length, new, pages in zip(LENGTHS, QUERIES, TABLES, strict=True):
        parts = [x[begin : begin + new].flatten(1).cpu() for x in (q, k, v)]
        REFERENCE.rope_append(*parts, weights, EPS, turn, cache, 0, pages, length - new)
        assert error(q_out[begin : begin + new].flatten(1), parts[0]) < FLOAT
        begin += new
    assert error(keys, cache.keys[0]) < HALF
    assert error(values, cache.values[0]) < HALF
    assert torch.isnan(q_out[begin:].cpu()).all()


@pytest.mark.parametrize("interleaved", [False, True])
def test_latent_append_equals_the_reference(interleaved: bool) -> None:
    heads, nope, pairs, latent = 3, 12, 4, 40
    q, kv, norm = (
        normal(1, TOKENS, heads, nope + 2 * pairs),
        normal(2, TOKENS, latent + 2 * pairs),
        normal(3, latent),
    )
    turn = rope(pairs, interleaved, nope)
    cache, q_out = zeros(8, PAGE, 1, latent + 2 * pairs), unset(TOKENS, heads, 2 * pairs)
    tails = q[:, :, nope:]
    latent_append(tails, kv, norm, EPS, rope_table(turn, DEVICE), filled_batch(), cache, q_out)

    wanted = REFERENCE.kv_cache(CacheShape(1, 8, PAGE, 1, latent + 2 * pairs, 0))
    begin = 0
    for length, new, pages in zip(LENGTHS, QUERIES, TABLES, strict=True):
        part, row = q[begin : begin + new].flatten(1).cpu(), kv[begin : begin + new].cpu()
        start = length - new
        REFERENCE.latent_append(part, heads, row, weight(norm), EPS, turn, wanted, 0, pages, start)
        assert error(q_out[begin : begin + new], part.view(new, heads, -1)[..., nope:]) < FLOAT
        begin += new
    assert error(cache, wanted.keys[0]) < HALF


@pytest.mark.parametrize("position", [65535, 1_000_000])
def test_angles_stay_exact_far_into_a_sequence(position: int) -> None:
    frequencies = (1.0, 0.7071, 1e-3)
    q = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], device=DEVICE).view(1, 1, 6)
    batch = Batch.allocate(1, 1, DEVICE)
    batch.lengths.fill_(position + 1)
    batch.offsets.copy_(torch.tensor([0, 1]))
    page = zeros(1, position + 1, 1, 6)[:, :1].expand(1, position + 1, 1, 6)
    q_out = unset(1, 1, 6)
    table = rope_table(Rope(frequencies, False), DEVICE)
    rope_append(q, q.clone(), q.clone(), None, EPS, table, batch, page, page.clone(), q_out)
    angles = position * np.array(frequencies)
    wanted = np.concatenate([np.cos(angles), np.sin(angles)])
    assert np.abs(q_out.cpu().numpy().ravel() - wanted).max() < 1e-6


def test_rope_refuses_to_turn_in_place() -> None:
    q, k, cache = normal(1, 6, 1, 8), normal(2, 6, 1, 8), zeros(8, PAGE, 1, 8)
    table = rope_table(rope(4, False), DEVICE)
    with pytest.raises(ValueError, match="in place"):
        rope_append(q, k, k, None, EPS, table, filled_batch(), cache, cache, q)
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
