"""Products with quantised weights against gguf-py's dequantisers and float64 sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import _type_traits, dequantize

from kernels import ggml, ik_types
from kernels.gpu.quant import matmul
from kernels.gpu.quant.dense import linear
from kernels.gpu.quant.formats import FORMATS
from kernels.gpu.quant.gemv import GEMV_MAX_ROWS, Rows, expert_gemv, gemv
from kernels.gpu.quant.q8 import quantise
from kernels.ops import Tensor
from kernels.quants import BY_NAME, IK_TYPES, MATRIX_TYPES
from kernels.reference import ReferenceOps
from tests.kernels.gpu.quantised_cases import as_read, in_8_bits, random_tensor, repack

TYPES = sorted(FORMATS)
FLOAT = 1e-5
"""Largest float32 rounding of a sum, over the sum's magnitude."""


def wanted_weights(tensor: Tensor) -> torch.Tensor:
    """The weights in float64, as gguf-py reads them; as ggml does where gguf-py cannot."""
    kind = GGMLQuantizationType.__members__.get(tensor.type.name)
    if kind is not None and (kind in _type_traits or kind.name in ("F32", "F16")):
        values = dequantize(tensor.data, kind)
    else:
        rounded = tensor.type.name in IK_TYPES
        values = ik_types.dequantise(tensor, rounded) if rounded else ggml.dequantise(tensor)
    return torch.from_numpy(values.astype(np.float64)).reshape(tensor.shape)


def activations(n: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, cols, generator=torch.Generator().manual_seed(seed))


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest magnitude."""
    assert got.dtype == torch.float32 and got.shape == wanted.shape
    return float((got.cpu().double() - wanted).abs().max() / wanted.abs().max())


def as_halves(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.float16).double()


def test_every_type_that_a_product_reads_has_a_format() -> None:
    assert set(FORMATS) == MATRIX_TYPES


@pytest.mark.parametrize("name", TYPES)
def test_few_rows(name: str, device: torch.device) -> None:
    tensor = random_tensor(name, (3, 512))
    x = activations(1, 512)
    (y,) = gemv(x.to(device), [repack(tensor, device)])
    assert error(y, as_read(x, name) @ wanted_weights(tensor).T) < FLOAT


@pytest.mark.parametrize("name", TYPES)
def test_many_rows(name: str, device: torch.device) -> None:
    tensor = random_tensor(name, (3, 256), seed=1)
    x = activations(9, 256)
    y = matmul.gemm(matmul.fp16_activations(x.to(device)), repack(tensor, device))
    wanted = as_halves(x) @ as_halves(wanted_weights(tensor)).T
    assert error(y, wanted) < 1e-4


def test_rows_of_the_largest_tile(device: torch.device) -> None:
    tensor, x = random_tensor("Q5_0", (5, 96)), activations(520, 96)
    y = linear(x.to(device), repack(tensor, device))
    assert error(y, x.double() @ wanted_weights(tensor).T) < 1e-3


@pytest.mark.parametrize("n", range(1, 10))
def test_every_count_of_rows(n: int, device: torch.device) -> None:
    tensor = random_tensor("Q4_K", (17, 256))
    x = activations(n, 256)
    y = linear(x.to(device), repack(tensor, device))
    few = n <= GEMV_MAX_ROWS
    read = in_8_bits(x) if few else x.double()
    assert error(y, read @ wanted_weights(tensor).T) < (FLOAT if few else 1e-3)


@pytest.mark.parametrize("name", [name for name in TYPES if BY_NAME[name].block < 256])
def test_one_block_of_columns(name: str, device: torch.device) -> None:
    cols = BY_NAME[name].block if BY_NAME[name].block > 1 else 7
    tensor = random_tensor(name, (18, cols))
    weight = repack(tensor, device)
    x = activations(2, cols)
    weights = wanted_weights(tensor).T
    wanted = x.double() @ weights
    assert error(gemv(x.to(device), [weight])[0], as_read(x, name) @ weights) < FLOAT
    assert error(matmul.gemm(matmul.fp16_activations(x.to(device)), weight), wanted) < 2e-3


def test_rows_of_no_whole_tile(device: torch.device) -> None:
    tensor = random_tensor("Q8_0", (67, 96))
    weight, x = repack(tensor, device), activations(18, 96)
    weights = wanted_weights(tensor).T
    wanted = x.double() @ weights
    assert error(gemv(x[:3].to(device), [weight])[0], in_8_bits(x[:3]) @ weights) < FLOAT
    assert error(matmul.gemm(matmul.fp16_activations(x.to(device)), weight), wanted) < 1e-3


PARTS = [("Q4_K", 21), ("IQ2_S", 5), ("Q6_K", 16), ("F32", 1)]
"""Types with activations in 8 bits and in float32, whole tiles and not."""


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 3])
def test_matrices_that_read_the_same_take_one_launch(
    n: int, count: int, device: torch.device
) -> None:
    tensors = [random_tensor(name, (rows, 512), seed=3) for name, rows in PARTS[:count]]
    x = activations(n, 512)
    biases = [None, *(activations(1, rows, 5)[0].to(device) for _, rows in PARTS[1:count])]
    ys = gemv(x.to(device), [repack(tensor, device) for tensor in tensors], None, biases)
    for y, tensor, bias in zip(ys, tensors, biases, strict=True):
        wanted = as_read(x, tensor.type.name) @ wanted_weights(tensor).T
        assert error(y, wanted + (0 if bias is None else bias.cpu().double())) < FLOAT


def test_rows_in_8_bits_are_enough(device: torch.device) -> None:
    tensor, x = random_tensor("Q5_K", (9, 256)), activations(2, 256)
    rows = Rows.of(quantise(x.to(device)))
    assert (
        error(gemv(rows, [repack(tensor, device)])[0], in_8_bits(x) @ wanted_weights(tensor).T)
        < FLOAT
    )


@pytest.mark.parametrize("cols", [32, 96, 2048, 4128])
def test_activations_are_rounded_as_ggml_rounds_them(cols: int, device: torch.device) -> None:
    x = activations(3, cols) * 10.0 ** torch.arange(-20, 21, 20)[:, None]
    x[1, :32] = 0.0
    made = quantise(x.to(device))
    column = torch.arange(32)
    place = column // 16 * 16 + column % 4 * 4 + column // 4 % 4
    numbers = made.numbers.cpu().view(3, -1, 32)[..., place].double()
    factors = made.factors.cpu().double()
    assert torch.equal((numbers * factors[..., :1]).view(3, cols), in_8_bits(x))
    halves = (numbers * factors[..., :1]).view(3, -1, 2, 16).sum(-1)
    sums = torch.cat([halves, halves.sum(-1, keepdim=True)], -1)
    assert torch.allclose(factors[..., 1:], sums, rtol=1e-6, atol=0)


def test_results_are_added_to_what_is_there(device: torch.device) -> None:
    tensor = random_tensor("Q6_K", (5, 256))
    weight, x, start = repack(tensor, device), activations(9, 256), activations(9, 5, seed=1)
    weights = wanted_weights(tensor).T
    wanted = start.double() + x.double() @ weights
    few, many = start[:8].clone().to(device), start.clone().to(device)
    linear(x[:8].to(device), weight, few)
    linear(x.to(device), weight, many)
    assert error(few, start[:8].double() + in_8_bits(x[:8]) @ weights) < FLOAT
    assert error(many, wanted) < 1e-3


def test_agrees_with_the_reference_ops(device: torch.device) -> None:
    tensor, ops = random_tensor("IQ3_S", (20, 512)), ReferenceOps()
    x, residual = activations(4, 512), activations(4, 20, seed=1)
    out = residual.clone().to(device)
    linear(x.to(device), repack(tensor, device), out)
    ops.linear_add(x, ops.matrix(tensor), residual)
    assert error(out, residual.double()) < FLOAT


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_rows_of_any_size_reach_the_tensor_cores(size: float, device: torch.device) -> None:
    tensor, x = random_tensor("Q4_K", (4, 256)), activations(9, 256) * size
    x[3] = 0.0
    x[5] *= 1000.0
    y = linear(x.to(device), repack(tensor, device)).cpu()
    wanted = x.double() @ wanted_weights(tensor).T
    assert torch.equal(y[3], torch.zeros(4))
    for row in (0, 5, 8):
        assert error(y[row], wanted[row]) < 2e-3


def expert_case(name: str, device: torch.device) -> tuple[Any, torch.Tensor]:
    tensor = random_tensor(name, (5, 7, 256))
    return repack(tensor, device), wanted_weights(tensor)


def chosen(x: torch.Tensor, weights: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Pair by pair in float64; nothing for ids below zero."""
    share = len(ids) // len(x)
    return torch.stack(
        [
            weights[i] @ x[p // share].double()
            if i >= 0
            else torch.zeros(weights.shape[1]).double()
            for p, i in enumerate(ids)
        ]
    )


@pytest.mark.parametrize("name", ["Q4_K", "MXFP4", "IQ3_S", "F16"])
def test_chosen_experts(name: str, device: torch.device) -> None:
    weight, values = expert_case(name, device)
    ids = [4, -1, 0, 2]
    places = torch.tensor(ids, dtype=torch.int32, device=device)
    shared, own = activations(2, 256), activations(4, 256, seed=1)
    for x in (shared, own):
        y = expert_gemv(x.to(device), weight, places)
        assert error(y, chosen(x, values, ids)) < FLOAT


@pytest.mark.parametrize("name", ["Q4_K", "IQ2_XS"])
def test_tokens_grouped_by_expert(name: str, device: torch.device) -> None:
    weight, values = expert_case(name, device)
    ids = [3] * 33 + [0, -1, 3, 1, -1, 0, 3]  # an expert of three tiles, of one, of none
    places = torch.tensor(ids, dtype=torch.int32, device=device)
    grouped = matmul.groups(places, 5)
    for x in (activations(20, 256), activations(40, 256, seed=1)):
        y = matmul.grouped_gemm(matmul.fp16_activations(x.to(device)), weight, grouped)
        assert error(y, chosen(x, values, ids)) < 1e-3


@pytest.mark.parametrize("pairs", [1, 7, 200, 600])
def test_groups_hold_every_pair_once(pairs: int, device: torch.device) -> None:
    ids = torch.randint(-1, 6, (pairs,), generator=torch.Generator().manual_seed(pairs))
    grouped = matmul.groups(ids.int().to(device), 6)
    order, seen = grouped.order.tolist(), []
    for expert, begin, end in grouped.tiles.tolist():
        assert end - begin <= grouped.size
        members = order[begin:end]
        assert all(ids[p] == expert for p in members)
        seen += members
    assert sorted(seen) == [p for p in range(pairs) if ids[p] >= 0]


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    weight = repack(random_tensor("Q4_0", (4, 64)), device)
    for shape in ((9, 64), (1, 32), (0, 64)):
        with pytest.raises(ValueError, match="do not fit"):
            gemv(torch.zeros(shape, device=device), [weight])
    with pytest.raises(ValueError, match="no multiple"):
        ids = torch.zeros(3, dtype=torch.int32, device=device)
        expert_gemv(torch.zeros(2, 64, device=device), weight, ids)
