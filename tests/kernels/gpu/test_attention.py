"""Paged attention, grouped-query and latent, decode and prefill, against float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.grouped import attention
from kernels.gpu.attention.plan import AttentionPlan, plan_attention, plan_latent_attention
from kernels.gpu.attention.scratch import Scratch
from tests.kernels.gpu.attention_cases import PAGE, TOLERANCE, Cache, exact, run, run_latent, wanted
from tests.kernels.gpu.gpu_cases import DEVICE, error, unset

# The interpreter says when a split holds nothing: the logarithm of 0 is meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("group", range(1, 17))
def test_every_group_size_decodes(group: int) -> None:
    run((37,), (1,), 2 * group, 2, 16, splits=1 + group % 3)


@pytest.mark.parametrize("size", [64, 80, 96, 128, 192, 256])
def test_every_head_size(size: int) -> None:
    run((19,), (3,), 2, 1, size, splits=2)


def test_values_narrower_than_keys() -> None:
    run((19,), (3,), 4, 2, 48, 20, splits=2)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("splits", [1, 3])
def test_one_position_and_the_edges_of_pages_tiles_and_splits(length: int, splits: int) -> None:
    run((length,), (1,), 3, 1, 16, splits=splits)


def test_a_new_token_attends_to_itself() -> None:
    """Lengths, not positions: with one position the result is that position's value."""
    cache = Cache((1,), 1, 16, 16, PAGE)
    batch = Batch.allocate(1, 1, DEVICE)
    batch.write((1,), (1,), cache.pages, PAGE)
    plan, out = plan_attention(1, 1, 2, 1, 16, 16, 64, 4), unset(1, 2, 16)
    q = exact(1, 1, 2, 16)
    attention(q, *cache.rows, batch, 1.0, plan, Scratch.allocate(plan, 1, DEVICE), out)
    assert torch.equal(out[0], cache.exact[0][1].expand(2, 1, 16)[:, 0])


@pytest.mark.parametrize("start", [0, 1, 4, 30])
@pytest.mark.parametrize("group", [1, 5, 7])
def test_a_chunk_is_causal(start: int, group: int) -> None:
    run((start + 21,), (21,), group, 1, 16, splits=1 + start % 3)


@pytest.mark.parametrize("sequences", range(1, 9))
def test_a_batch_of_sequences_on_pages_of_their_own(sequences: int) -> None:
    lengths = (9, 1, 40, 4, 5, 16, 3, 22)[:sequences]
    run(lengths, (1,) * sequences, 5, 1, 16, splits=2)


def test_sequences_with_different_numbers_of_new_tokens_and_padding() -> None:
    run((9, 12, 7, 30), (9, 1, 0, 13), 4, 2, 16, splits=2, padding=2)
    run((9, 12, 7, 30), (9, 1, 0, 13), 4, 2, 16, splits=1, padding=2)


def test_64k_positions() -> None:
    run((65536,), (1,), 2, 1, 16, page=64, positions=512, splits=4)
    run((65535,), (2,), 1, 1, 16, page=64, positions=512, splits=1)


def test_half_precision_queries_and_results() -> None:
    cache = Cache((10,), 1, 16, 16, PAGE)
    batch = Batch.allocate(1, 3, DEVICE)
    batch.write((10,), (1,), cache.pages, PAGE)
    plan, out = plan_attention(1, 1, 3, 1, 16, 16, 64, 4), unset(1, 3, 16, dtype=torch.float16)
    q = exact(1, 1, 3, 16)
    attention(q.half(), *cache.rows, batch, 0.3, plan, Scratch.allocate(plan, 1, DEVICE), out)
    assert error(out, wanted(q, *cache.exact[0], 0.3)) < 2e-3


def test_one_plan_serves_a_growing_sequence() -> None:
    """What a captured graph relies on: the same tensors and grid, other contents."""
    batch = Batch.allocate(1, 8, DEVICE)
    plan = replace(plan_attention(1, 1, 3, 1, 16, 16, 32, 4), splits=3, positions=16)
    scratch, q, out = Scratch.allocate(plan, 1, DEVICE), exact(1, 1, 3, 16), unset(1, 3, 16)
    cache = Cache((32,), 1, 16, 16, PAGE)
    k, v = cache.exact[0]
    for length in (1, 16, 17, 32, 5):
        batch.write((length,), (1,), cache.pages, PAGE)
        attention(q, *cache.rows, batch, 0.3, plan, scratch, out)
        assert error(out, wanted(q, k[:length], v[:length], 0.3)) < TOLERANCE


@pytest.mark.parametrize("heads", [1, 3, 16, 40])
@pytest.mark.parametrize("splits", [1, 2])
def test_latent_decode(heads: int, splits: int) -> None:
    run_latent((21,), (1,), heads, splits=splits)


@pytest.mark.parametrize("length", [1, 4, 5, 16, 17])
def test_latent_one_position_and_edges(length: int) -> None:
    run_latent((length,), (1,), 5, splits=3)


def test_latent_chunks_of_several_sequences() -> None:
    run_latent((30, 5, 1, 17), (7, 5, 1, 1), 3, splits=2)


def test_latent_at_its_real_size() -> None:
    run_latent((33,), (2,), 16, latent=512, rope=64, page=16, positions=32, splits=2)


def test_latent_features_that_are_no_powers_of_two() -> None:
    run_latent((9,), (2,), 3, latent=40, rope=12)


def test_plans_fill_the_processors_and_never_split_needlessly() -> None:
    decode = plan_attention(1, 1, 32, 4, 128, 128, 65536, 128)
    assert decode.grid == (1, 4, 64)
    assert plan_attention(1, 1, 32, 4, 128, 128, 512, 128).splits == 2
    assert plan_attention(1, 1, 32, 4, 128, 128, 1, 128).splits == 1
    prefill = plan_attention(1, 2048, 32, 4, 128, 128, 65536, 128)
    assert prefill.grid == (256, 4, 1)
    assert plan_attention(8, 1, 40, 8, 128, 128, 65536, 128).grid == (8, 8, 4)
    assert plan_latent_attention(1, 1, 128, 512, 64, 65536, 128).grid == (4, 1, 64)
    assert Scratch.allocate(prefill, 2048, "cpu").parts.numel() == 128
    assert Scratch.allocate(decode, 1, "cpu").parts.shape == (32 * 64, 128)


def test_what_does_not_fit_the_plan_is_refused() -> None:
    cache = Cache((5,), 1, 16, 16, PAGE)
    plan = replace(plan_attention(1, 1, 2, 1, 16, 16, 5, 4), splits=2)
    q, out, batch = exact(1, 1, 2, 16), unset(1, 2, 16), Batch.allocate(1, 2, DEVICE)

    def launch(plan: AttentionPlan, batch: Batch, q: Any, room: int) -> None:
        attention(q, *cache.rows, batch, 1.0, plan, Scratch.allocate(plan, room, DEVICE), out)

    with pytest.raises(ValueError, match="a batch of 3"):
        launch(plan, Batch.allocate(3, 2, DEVICE), q, 1)
    with pytest.raises(ValueError, match="need more"):
        launch(plan, batch, q, 0)
    with pytest.raises(ValueError, match="q "):
        launch(plan, batch, exact(1, 1, 3, 16), 1)
    with pytest.raises(ValueError, match="keys"):
        launch(replace(plan, kv_heads=2), batch, q, 1)
    with pytest.raises(ValueError, match="heads"):
        plan_attention(1, 1, 5, 2, 16, 16, 5, 4)
