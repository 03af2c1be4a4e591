"""The cache in 8 bits: stored as gguf-py's Q8_0 is, and read by every attention kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernels.gpu.attention.append import append_heads, append_latent
from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.kv_cache import Rows
from kernels.gpu.attention.rope import rope_table
from kernels.gpu.gpu_ops import GpuOps
from kernels.ops import CacheShape, Rope
from kernels.reference import ReferenceOps
from tests.kernels.gpu.attention_cases import empty, planes, run, run_latent
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal

PAGE = 4
# The interpreter says when a split holds nothing: the logarithm of 0 is meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def shuffled(tokens: int) -> tuple[Batch, Any]:
    """A sequence whose tokens are all new, and the (page, slot) of each."""
    count = -(-tokens // PAGE)
    pages = np.random.default_rng(3).permutation(count).astype(np.int32)
    batch = Batch.allocate(1, count, DEVICE)
    batch.write([tokens], [tokens], [pages], PAGE)
    at = np.arange(tokens)
    return batch, (
        torch.from_numpy(pages[at // PAGE].astype(np.int64)),
        torch.from_numpy(at % PAGE),
    )


def still(pairs: int) -> Rope:
    """A rope that rotates nothing."""
    return Rope((0.0,) * pairs, False)


def awkward(tokens: int, heads: int, features: int) -> Any:
    """Rows with zeros, exact ties between two numbers, and large and tiny blocks."""
    x = normal(5, tokens, heads, features)
    x[0] = 0.0
    x[1, :, :32] = torch.arange(32, device=DEVICE) * 0.5
    x[1, :, 0] = 127.0  # scale 1: every other number is a tie
    x[2] *= 1e-6
    x[3] *= 1e4
    x[4] = -x[1]
    return x


def expect(rows: Rows, place: Any, x: Any) -> None:
    """Every bit is that of gguf-py's quantiser."""
    numbers, scales, _ = planes(x)
    assert rows.scales is not None
    assert torch.equal(rows.numbers[place], numbers)
    assert torch.equal(rows.scales[place], scales)


@pytest.mark.parametrize(("key", "value"), [(32, 64), (96, 32), (128, 128)])
def test_keys_and_values_are_rounded_as_gguf_rounds_them(key: int, value: int) -> None:
    tokens, heads = 9, 2
    batch, place = shuffled(tokens)
    k, v = awkward(tokens, heads, key), awkward(tokens, heads, value)
    keys, values = empty((4, PAGE, heads), key, "q8"), empty((4, PAGE, heads), value, "q8")
    append_heads(k, v, None, False, 1e-5, rope_table(still(16), DEVICE), batch, keys, values)
    expect(keys, place, k)
    expect(values, place, v)
    assert (keys.numbers[3] == 127).all()  # a page that is not this sequence's


def test_latent_rows_are_rounded_as_gguf_rounds_them() -> None:
    tokens, latent, rotated = 6, 96, 32
    batch, place = shuffled(tokens)
    kv = awkward(tokens, 1, latent + rotated)[:, 0]
    rows = empty((2, PAGE, 1), latent + rotated, "q8")
    table = rope_table(still(rotated // 2), DEVICE)
    append_latent(kv, torch.ones(latent, device=DEVICE), 1.0, table, batch, rows)
    normed = kv[:, :latent] * torch.rsqrt(kv[:, :latent].pow(2).mean(-1, keepdim=True) + 1.0)
    numbers, scales, _ = planes(normed[:, None])
    assert rows.scales is not None  # the norm itself may differ in the last bit
    assert (rows.numbers[place][..., :latent].int() - numbers.int()).abs().max() <= 1
    assert error(rows.scales[place][..., :3], scales) < 2**-10
    expect(Rows(rows.numbers[..., latent:].contiguous(), rows.scales[..., 3:].contiguous()),
           place, kv[:, None, latent:])  # fmt: skip


@pytest.mark.parametrize("group", [1, 5, 7])
@pytest.mark.parametrize("length", [1, 4, 5, 37])
def test_decoding(group: int, length: int) -> None:
    run((length,), (1,), 2 * group, 2, 32, splits=1 + length % 3, kind="q8")


@pytest.mark.parametrize("size", [64, 96, 128, 256])
def test_head_sizes(size: int) -> None:
    run((19,), (3,), 3, 1, size, splits=2, kind="q8")


def test_values_narrower_than_keys() -> None:
    run((19,), (3,), 4, 2, 96, 32, splits=2, kind="q8")


def test_a_chunk_of_several_sequences_and_padding() -> None:
    run((9, 12, 7, 30), (9, 1, 0, 13), 5, 1, 64, splits=2, padding=2, kind="q8")


def test_four_thousand_positions() -> None:
    run((4097,), (1,), 7, 1, 64, page=64, positions=256, splits=4, kind="q8")


@pytest.mark.parametrize("length", [1, 4, 5, 33])
def test_latent_decoding(length: int) -> None:
    run_latent((length,), (1,), 5, latent=64, rope=32, splits=1 + length % 2, kind="q8")


def test_latent_rows_at_their_real_size() -> None:
    run_latent((33, 1), (2, 1), 16, latent=512, rope=64, page=16, splits=2, kind="q8")


def test_a_latent_whose_size_is_no_power_of_two() -> None:
    run_latent((9,), (3,), 3, latent=96, rope=32, kind="q8")


@pytest.mark.parametrize("shape", [
    CacheShape(2, 3, PAGE, 2, 64, 32, "q8"), CacheShape(2, 3, PAGE, 1, 96, 0, "q8"),
    CacheShape(2, 3, PAGE, 2, 80, 48),
])  # fmt: skip
def test_a_cache_has_the_size_that_its_shape_says(shape: CacheShape) -> None:
    cache = GpuOps(DEVICE).kv_cache(shape)
    parts = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    held = sum(part.numel() * part.element_size() for part in parts if part is not None)
    assert held == shape.bytes_per_position * shape.pages * PAGE


def test_a_copied_page_has_the_scales_too_and_one_from_the_host() -> None:
    ops = GpuOps(DEVICE)
    cache = ops.kv_cache(CacheShape(2, 3, PAGE, 1, 64, 32, "q8"))
    parts = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    for number, part in enumerate(parts):
        assert part is not None
        part[:, 0] = number + 1
    ops.copy_page(cache, 0, 2)
    for number, part in enumerate(parts):
        assert part is not None
        assert (part[:, 2] == number + 1).all() and not part[:, 1].any()
    ops.write_page(cache, 1, ops.read_page(cache, 2))
    for part in parts:
        assert part is not None and (part[:, 1] == part[:, 2]).all()
    with pytest.raises(ValueError, match="bytes expected"):
        ops.write_page(cache, 1, ops.read_page(cache, 2)[1:])


def test_what_cannot_be_in_8_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="80 features in 8 bits"):
        CacheShape(1, 1, PAGE, 1, 80, 64, "q8")
    with pytest.raises(ValueError, match="16 features in 8 bits"):
        CacheShape(1, 1, PAGE, 1, 64, 16, "q8")
    rows, batch = empty((1, PAGE, 1), 96, "q8"), shuffled(1)[0]
    kv, norm = normal(1, 1, 96), normal(2, 80)
    with pytest.raises(ValueError, match="80 latent features in 8 bits"):
        append_latent(kv, norm, 1e-5, rope_table(still(8), DEVICE), batch, rows)


def test_the_reference_does_not_round() -> None:
    shape = CacheShape(1, 1, PAGE, 1, 32, 32, "q8")
    assert ReferenceOps().kv_cache(shape).keys.dtype == torch.float32


def test_rows_that_are_no_cache_are_refused() -> None:
    numbers = torch.zeros(2, PAGE, 1, 64, dtype=torch.int8)
    for bad in (None, torch.zeros(2, PAGE, 1, 3).half(), torch.zeros(2, PAGE, 1, 2)):
        with pytest.raises(ValueError, match=r"scales|cache of"):
            Rows(numbers, bad)
    with pytest.raises(ValueError, match="strides"):
        Rows(torch.zeros(2, PAGE, 64, 2).half().transpose(2, 3))
