"""The chosen experts of a few tokens in two launches, against float64 sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernels import ggml
from kernels.gpu.moe import experts
from kernels.gpu.moe.experts import down_add, expert_hidden, moe_add
from kernels.gpu.quant import gemv
from kernels.gpu.quant.gemv import Tile, tile_for
from kernels.ops import Tensor
from tests.kernels.gpu.gpu_cases import DEVICE, normal
from tests.kernels.gpu.quantised_cases import as_read, random_tensor, repack

FLOAT = 1e-5


def values(tensor: Tensor) -> torch.Tensor:
    return torch.from_numpy(ggml.dequantise(tensor).astype(np.float64))


def ints(ids: Any) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.int32, device=DEVICE)


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest magnitude."""
    return float((got.cpu().double() - wanted).abs().max() / wanted.abs().max())


def gated(x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate @ x) * (up @ x)


@pytest.mark.parametrize("tile", [Tile(16, 32, 4), Tile(8, 64, 8)], ids=["16 x 32", "8 x 64"])
@pytest.mark.parametrize("types", [("Q4_K", "Q5_K"), ("IQ4_XS", "IQ2_XS")])
def test_gate_and_up_may_be_of_two_types(
    types: tuple[str, str], tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemv, "_TILES", (tile,))
    monkeypatch.setattr(experts, "_FLOAT_TILES", (tile,))
    gate, up = (random_tensor(name, (4, 19, 512), seed=7) for name in types)
    x = normal(1, 2, 512, scale=0.02)
    ids = [3, 0, -1, 3]
    y = expert_hidden(x, repack(gate, DEVICE), repack(up, DEVICE), ints(ids))
    read = as_read(x, *types)
    rows = [gated(read[p // 2], values(gate)[i], values(up)[i]) for p, i in enumerate(ids)]
    wanted = torch.stack(rows)
    wanted[2] = 0.0
    assert off(y, wanted) < FLOAT
    assert not y[2].any()


@pytest.mark.parametrize("tile", [Tile(16, 32, 4), Tile(8, 64, 8)], ids=["16 x 32", "8 x 64"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_down_adds_up_a_tokens_experts(
    top_k: int, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemv, "_TILES", (tile,))
    monkeypatch.setattr(experts, "_FLOAT_TILES", (tile,))
    down = random_tensor("Q8_0", (4, 21, 96))
    hidden, weights = normal(1, 2 * top_k, 96), normal(2, 2, top_k)
    read = as_read(hidden, "Q8_0")
    ids = [[3, -1, 0][:top_k], [-1, 2, 2][:top_k]]
    residual = normal(3, 2, 50)[:, 5:26]  # rows that are not neighbours
    wanted = residual.cpu().double().clone()
    for token in range(2):
        for k, expert in enumerate(ids[token]):
            if expert >= 0:
                row = values(down)[expert] @ read[token * top_k + k]
                wanted[token] += float(weights[token, k]) * row
    down_add(hidden, repack(down, DEVICE), ints(ids), weights, residual)
    assert off(residual, wanted) < FLOAT


def test_columns_that_fill_no_block() -> None:
    gate, up = (random_tensor("F32", (2, 5, 37), seed) for seed in (0, 1))
    down, x, residual = random_tensor("F16", (2, 37, 5)), normal(1, 1, 37), normal(2, 1, 37)
    wanted = residual.cpu().double().clone()
    for expert, weight in ((1, 0.25), (0, 2.0)):
        hidden = gated(x[0].cpu().double(), values(gate)[expert], values(up)[expert])
        wanted[0] += weight * (values(down)[expert] @ hidden)
    stacks = repack(gate, DEVICE), repack(up, DEVICE), repack(down, DEVICE)
    moe_add(x, ints([[1, 0]]), torch.tensor([[0.25, 2.0]], device=DEVICE), stacks, residual)
    assert off(residual, wanted) < FLOAT


def test_what_does_not_fit_is_refused() -> None:
    gate, down = (
        repack(random_tensor("Q8_0", shape), DEVICE) for shape in ((2, 5, 32), (2, 32, 64))
    )
    with pytest.raises(ValueError, match="do not fit experts"):
        expert_hidden(normal(1, 1, 32), gate, down, ints([0]))
    with pytest.raises(ValueError, match="do not fit experts"):
        expert_hidden(normal(1, 2, 32), gate, gate, ints([0, 1, 1]))
    with pytest.raises(ValueError, match="do not fit experts"):
        down_add(normal(1, 2, 32), down, ints([[0, 1]]), normal(1, 1, 2), normal(1, 1, 32))


@pytest.mark.parametrize("slots", [False, True], ids=["all here", "in slots"])
@pytest.mark.parametrize("down_type", ["Q6_K", "MXFP4", "F16"])
def test_what_lies_between_is_rounded_once(down_type: str, slots: bool) -> None:
    """Gate and up leave their product in 8 bits where down reads that."""
    gate, up = (random_tensor("Q4_K", (4, 256, 256), seed) for seed in (0, 1))
    down = random_tensor(down_type, (4, 24, 256))
    x, residual = normal(1, 2, 256, scale=0.1), normal(2, 2, 24)
    ids, weights = [[3, 1], [0, 2]], normal(3, 2, 2).abs()
    at = [1, -1, 0, 2] if slots else [0, 1, 2, 3]
    table = ints([at]) if slots else None
    read, wanted = as_read(x, "Q4_K"), residual.cpu().double().clone()
    for token in range(2):
        for k, expert in enumerate(ids[token]):
            if (i := at[expert]) >= 0:
                hidden = gated(read[token], values(gate)[i], values(up)[i])
                hidden = as_read(hidden.float()[None], down_type)[0]
                wanted[token] += float(weights[token, k]) * (values(down)[i] @ hidden)
    stacks = repack(gate, DEVICE), repack(up, DEVICE), repack(down, DEVICE)
    moe_add(x, ints(ids), weights, stacks, residual, slots=table)
    assert off(residual, wanted) < 2e-3  # float32's last bits may round a number to its neighbour


def test_small_matrices_are_cut_between_more_warps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemv, "multiprocessors", lambda device: 128)
    device = torch.device(DEVICE)
    for rows, blocks, products, tile in (
        (152064, 64, 1, (16, 32)),
        (5120, 64, 1, (4, 64)),
        (2048, 128, 1, (4, 128)),
        (768, 64, 8, (4, 64)),
        (768, 16, 1, (8, 32)),
    ):
        chosen = tile_for(rows, blocks, products, device, gemv.TILES)
        assert (chosen.rows, chosen.blocks) == tile
