"""Products with quantised weights against gguf-py's dequantisers and float64 sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import _type_traits, dequantize

from kernels import ggml
from kernels.gpu.quant import matmul
from kernels.gpu.quant.formats import FORMATS
from kernels.ops import Tensor
from kernels.quants import BY_NAME, MATRIX_TYPES
from kernels.reference import ReferenceOps
from tests.kernels.gpu.quantised_cases import random_tensor, repack

TYPES = sorted(FORMATS)
FLOAT = 1e-5
"""Largest float32 rounding of a sum, over the sum's magnitude."""


def wanted_weights(tensor: Tensor) -> torch.Tensor:
    """The weights in float64, as gguf-py reads them; as ggml does where gguf-py cannot."""
    kind = GGMLQuantizationType.__members__.get(tensor.type.name)
    if kind is not None and (kind in _type_traits or kind.name in ("F32", "F16")):
        values = dequantize(tensor.data, kind)
    else:
        values = ggml.dequantise(tensor)
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
    y = matmul.gemv(x.to(device), repack(tensor, device))
    assert error(y, x.double() @ wanted_weights(tensor).T) < FLOAT


@pytest.mark.parametrize("name", TYPES)
def test_many_rows(name: str, device: torch.device) -> None:
    tensor = random_tensor(name, (3, 256), seed=1)
    x = activations(9, 256)
    y = matmul.linear(x.to(device), repack(tensor, device))
    wanted = as_halves(x) @ as_halves(wanted_weights(tensor)).T
    assert error(y, wanted) < 1e-4


def test_rows_of_the_largest_tile(device: torch.device) -> None:
    tensor, x = random_tensor("Q5_0", (5, 96)), activations(520, 96)
    y = matmul.linear(x.to(device), repack(tensor, device))
    assert error(y, x.double() @ wanted_weights(tensor).T) < 1e-3


@pytest.mark.parametrize("n", range(1, 10))
def test_every_count_of_rows(n: int, device: torch.device) -> None:
    tensor = random_tensor("Q4_K", (17, 256))
    x = activations(n, 256)
    y = matmul.linear(x.to(device), repack(tensor, device))
    bound = FLOAT if n <= matmul.GEMV_MAX_ROWS else 1e-3
    assert error(y, x.double() @ wanted_weights(tensor).T) < bound


@pytest.mark.parametrize("name", [name for name in TYPES if BY_NAME[name].block < 256])
def test_one_block_of_columns(name: str, device: torch.device) -> None:
    cols = BY_NAME[name].block if BY_NAME[name].block > 1 else 7
    tensor = random_tensor(name, (18, cols))
    weight = repack(tensor, device)
    x = activations(2, cols)
    wanted = x.double() @ wanted_weights(tensor).T
    assert error(matmul.gemv(x.to(device), weight), wanted) < FLOAT
    assert error(matmul.gemm(matmul.fp16_activations(x.to(device)), weight), wanted) < 2e-3


def test_rows_of_no_whole_tile(device: torch.device) -> None:
    tensor = random_tensor("Q8_0", (67, 96))
    weight, x = repack(tensor, device), activations(18, 96)
    wanted = x.double() @ wanted_weights(tensor).T
    assert error(matmul.gemv(x[:3].to(device), weight), wanted[:3]) < FLOAT
    assert error(matmul.gemm(matmul.fp16_activations(x.to(device)), weight), wanted) < 1e-3


@pytest.mark.parametrize("splits", [2, 3, 100])
def test_columns_cut_between_programs(splits: int, device: torch.device) -> None:
    tensor = random_tensor("Q5_0", (5, 32 * 19))
    weight, x = repack(tensor, device), activations(2, 32 * 19).to(device)
    start = activations(2, 5, seed=1)
    wanted = x.cpu().double() @ wanted_weights(tensor).T
    assert error(matmul.gemv(x, weight, splits=splits), wanted) < FLOAT
    out = start.clone().to(device)
    assert matmul.gemv(x, weight, out, splits) is out
    assert error(out, wanted + start.double()) < FLOAT


def test_results_are_added_to_what_is_there(device: torch.device) -> None:
    tensor = random_tensor("Q6_K", (5, 256))
    weight, x, start = repack(tensor, device), activations(9, 256), activations(9, 5, seed=1)
    wanted = start.double() + x.double() @ wanted_weights(tensor).T
    few, many = start[:8].clone().to(device), start.clone().to(device)
    matmul.linear(x[:8].to(device), weight, few)
    matmul.linear(x.to(device), weight, many)
    assert error(few, wanted[:8]) < FLOAT
    assert error(many, wanted) < 1e-3


def test_agrees_with_the_reference_ops(device: torch.device) -> None:
    tensor, ops = random_tensor("Q3_K", (20, 512)), ReferenceOps()
    x, residual = activations(4, 512), activations(4, 20, seed=1)
    out = residual.clone().to(device)
    matmul.linear(x.to(device), repack(tensor, device), out)
    ops.linear_add(x, ops.matrix(tensor), residual)
    assert error(out, residual.double()) < FLOAT


def test_half_precision_activations(device: torch.device) -> None:
    tensor, x = random_tensor("Q4_0", (5, 64)), activations(2, 64).half()
    y = matmul.gemv(x.to(device), repack(tensor, device))
    assert error(y, x.double() @ wanted_weights(tensor).T) < FLOAT


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_rows_of_any_size_reach_the_tensor_cores(size: float, device: torch.device) -> None:
    tensor, x = random_tensor("Q4_K", (4, 256)), activations(9, 256) * size
    x[3] = 0.0
    x[5] *= 1000.0
    y = matmul.linear(x.to(device), repack(tensor, device)).cpu()
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
        y = matmul.expert_gemv(x.to(device), weight, places)
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
            matmul.gemv(torch.zeros(shape, device=device), weight)
    with pytest.raises(ValueError, match="no multiple"):
        ids = torch.zeros(3, dtype=torch.int32, device=device)
        matmul.expert_gemv(torch.zeros(2, 64, device=device), weight, ids)


def test_experts_may_be_cut_between_programs_too(device: torch.device) -> None:
    tensor = random_tensor("Q4_0", (2, 5, 32 * 9))
    weight, values = repack(tensor, device), wanted_weights(tensor)
    x, ids = activations(1, 32 * 9), [1, -1]
    places = torch.tensor(ids, dtype=torch.int32, device=device)
    y = matmul.expert_gemv(x.to(device), weight, places, splits=2)
    assert error(y, chosen(x, values, ids)) < FLOAT
