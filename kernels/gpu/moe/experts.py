"""The routed experts' feed-forward over packed weights: few tokens in float32, many on the tensor cores.

An id below zero is an expert that is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor as X

from kernels.gpu import elementwise
from kernels.gpu.moe import expert_kernels as kernels
from kernels.gpu.quant import matmul
from kernels.gpu.quant.weight import PackedWeight

_WARPS = 32
"""Warps that every multiprocessor shall have: with fewer, too little is read at a time."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and blocks of a program, and its warps: each thread has the four lanes of a block.

    Blocks are fewer than 8 a warp: where a tile's activations had one element for every thread, Triton
    would load them as they lie and pass them through shared memory in every step.
    """

    rows: int
    blocks: int
    warps: int


TILES = Tile(16, 8, 4), Tile(8, 16, 4), Tile(8, 32, 8), Tile(8, 64, 16)
_TILES = (Tile(512, 8, 4),) if triton.knobs.runtime.interpret else TILES
"""In the interpreter it is programs that take time."""


def tile_for(rows: int, products: int, device: torch.device) -> Tile:
    """The first of the tiles that gives so many products of so many rows warps enough, or the last."""
    wanted = _WARPS * matmul.multiprocessors(device)
    for tile in _TILES:
        if -(-rows // tile.rows) * products * tile.warps >= wanted:
            return tile
    return _TILES[-1]


Stacks = tuple[PackedWeight, PackedWeight, PackedWeight]
"""Gate, up and down, (experts, rows, cols) each."""
Rows = tuple[X, X, X]
"""Their biases: (experts, rows) float32, maybe with gaps between rows."""


def bias_rows(weight: PackedWeight) -> X:
    """A float32 stack of one row where it lies, (experts, features)."""
    count, rows, cols = weight.shape
    if weight.type.name != "F32" or rows != 1:
        raise ValueError(f"biases of {weight.type.name} {weight.shape}")
    return weight.planes[0].as_strided((count, cols), (weight.data.stride(0) // 4, 1))


def moe_add(
    x: X,
    ids: X,
    weights: X,
    stacks: Stacks,
    residual: X,
    biases: Rows | None = None,
    activation: int = 0,
) -> None:
    """residual (n, hidden) += sum of each token's experts' results times their weights.

    ids, (n, top_k) int32 on the device, are indices into the stacks and biases; weights are (n, top_k).
    """
    gate, up, down = stacks
    n, top_k = ids.shape
    pairs = ids.view(-1)
    inner, last = (None, None) if biases is None else (biases[:2], biases[2])
    if n <= matmul.GEMV_MAX_ROWS:
        hidden = expert_hidden(x, gate, up, pairs, inner, activation)
        down_add(hidden, down, ids, weights, residual, last)
        return
    together = matmul.groups(pairs, gate.shape[0])
    x16 = matmul.fp16_activations(x)
    products = [matmul.grouped_gemm(x16, part, together) for part in (gate, up)]
    hidden = activated(products, activation, pairs, inner)
    out = matmul.grouped_gemm(matmul.fp16_activations(hidden), down, together)
    if last is not None:
        elementwise.add_rows(out, last, pairs)
    add_weighted(out.view(n, top_k, -1), weights, residual)


def activated(
    products: list[X], activation: int, ids: X | None = None, biases: tuple[X, X] | None = None
) -> X:
    """The activation of a gate's and an up's products (`elementwise.activate`), written over the gate's; the
    list is emptied, so that the up's lives no longer than it is needed."""
    up, gate = products.pop(), products.pop()
    elementwise.activate(gate, up, gate, activation, ids, biases)
    return gate


def expert_hidden(
    x: X,
    gate: PackedWeight,
    up: PackedWeight,
    ids: X,
    biases: tuple[X, X] | None = None,
    activation: int = 0,
) -> X:
    """The activation of x @ gate.T and x @ up.T of expert ids[p] and row p // (pairs / len(x)), in float32.

    x is (n, cols), `ids` (pairs,); the result (pairs, rows), of no use where an id is below zero.
    """
    pairs = len(ids)
    _expect(gate.shape == up.shape and x.shape[1] == gate.cols and pairs % len(x) == 0, x, gate)
    assert x.stride(1) == 1 and ids.is_contiguous()
    tile = tile_for(gate.rows, pairs, x.device)
    y = torch.empty(pairs, gate.rows, device=x.device)
    first, second = biases or (y, y)
    kernels.swiglu[(-(-gate.rows // tile.rows), pairs)](
        *(y, x, ids, gate.planes, gate.table, up.planes, up.table),
        *(gate.rows, gate.cols, gate.blocks, x.stride(0)),
        *(gate.data.stride(0), up.data.stride(0), pairs // len(x)),
        *(first, second, first.stride(0), second.stride(0)),
        BIASED=biases is not None,
        ACTIVATION=activation,
        DECODE_GATE=gate.format.decode,
        DECODE_UP=up.format.decode,
        ROWS=tile.rows,
        BLOCKS=tile.blocks,
        num_warps=tile.warps,
    )
    return y


def down_add(
    hidden: X, down: PackedWeight, ids: X, weights: X, residual: X, bias: X | None = None
) -> None:
    """residual (n, rows) += the products of hidden (n * top_k, cols) with experts ids, with their bias, times
    weights.

    ids and weights are (n, top_k), contiguous; nothing is added for ids below zero.
    """
    n, top_k = ids.shape
    fits = hidden.shape == (n * top_k, down.cols) and residual.shape == (n, down.rows)
    _expect(fits and weights.shape == ids.shape and weights.is_contiguous(), hidden, down)
    assert hidden.is_contiguous() and ids.is_contiguous() and residual.stride(1) == 1
    tile = tile_for(down.rows, n, hidden.device)
    added = residual if bias is None else bias
    kernels.down_add[(-(-down.rows // tile.rows), n)](
        *(residual, hidden, ids, weights, down.planes, down.table),
        *(down.rows, down.cols, down.blocks, residual.stride(0), down.data.stride(0), top_k),
        *(added, added.stride(0)),
        BIASED=bias is not None,
        DECODE=down.format.decode,
        ROWS=tile.rows,
        BLOCKS=tile.blocks,
        num_warps=tile.warps,
    )


def _expect(fits: bool, x: X, weight: PackedWeight) -> None:
    if not fits:
        raise ValueError(f"activations {tuple(x.shape)} do not fit experts {weight.shape}")


def add_weighted(results: X, weights: X, residual: X) -> None:
    """residual (n, hidden) += the results (n, top_k, hidden) of each token times weights (n, top_k).

    One batched product; its sums have a fixed order.
    """
    n, top_k, _ = results.shape
    residual.view(n, 1, -1).baddbmm_(weights.view(n, 1, top_k), results)
