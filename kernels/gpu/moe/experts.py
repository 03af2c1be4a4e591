"""The routed experts' feed-forward over packed weights: few tokens as GEMVs, many on the tensor cores.

An id below zero is an expert that is not here.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor as X

from kernels.gpu import elementwise
from kernels.gpu.dependents import early
from kernels.gpu.moe import expert_dots as dots
from kernels.gpu.moe import expert_kernels as kernels
from kernels.gpu.quant import matmul
from kernels.gpu.quant.gemv import GEMV_MAX_ROWS, Rows, Tile, tile_for
from kernels.gpu.quant.q8 import Q8, quantise
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.rows.kernels import add_rows
from kernels.gpu.sizes import BLOCK

_FLOAT_TILES: tuple[Tile, ...] = Tile(16, 8, 4), Tile(8, 16, 4), Tile(8, 32, 8), Tile(8, 64, 16)
"""In float32 a step reads fewer blocks of more rows: a thread has the four lanes of a block."""
_TO_Q8: tuple[Tile, ...] = Tile(32, 32, 8), Tile(32, 64, 16)
"""A program that ends with blocks in 8 bits has whole blocks of rows."""
if triton.knobs.runtime.interpret:
    _FLOAT_TILES, _TO_Q8 = (Tile(512, 8, 4),), (Tile(512, 32, 4),)

Stacks = tuple[PackedWeight, PackedWeight, PackedWeight]
"""Gate, up and down, (experts, rows, cols) each."""
Biases = tuple[X, X, X]
"""Their biases: (experts, rows) float32, maybe with gaps between rows."""


def bias_rows(weight: PackedWeight) -> X:
    """A float32 stack of one row where it lies, (experts, features)."""
    count, rows, cols = weight.shape
    if weight.type.name != "F32" or rows != 1:
        raise ValueError(f"biases of {weight.type.name} {weight.shape}")
    return weight.planes[0].as_strided((count, cols), (weight.data.stride(0) // 4, 1))


def moe_add(
    x: Rows | X,
    ids: X,
    weights: X,
    stacks: Stacks,
    residual: X,
    biases: Biases | None = None,
    activation: int = 0,
    slots: X | None = None,
) -> None:
    """residual (n, hidden) += sum of each token's experts' results times their weights.

    ids, (n, top_k) int32 on the device, are indices into the stacks and biases, or into `slots`, (1, experts)
    int32, which has those; below zero is what is not here. weights are (n, top_k).
    """
    gate, up, down = stacks
    rows = x if isinstance(x, Rows) else Rows(x)
    n, top_k = ids.shape
    pairs = ids.view(-1)
    inner, last = (None, None) if biases is None else (biases[:2], biases[2])
    if n <= GEMV_MAX_ROWS:
        hidden = expert_hidden(rows, gate, up, pairs, inner, activation, slots, down)
        down_add(hidden, down, ids, weights, residual, last, slots)
        return
    if slots is not None:
        known = slots.view(-1)[pairs.clamp(min=0).long()]
        pairs = torch.where(pairs < 0, pairs, known)
    together = matmul.groups(pairs, gate.shape[0])
    x16 = matmul.fp16_activations(rows.x)
    products = [matmul.grouped_gemm(x16, part, together) for part in (gate, up)]
    hidden = activated(products, activation, pairs, inner)
    out = matmul.grouped_gemm(matmul.fp16_activations(hidden), down, together)
    if last is not None:
        add_rows(out, last, pairs)
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
    x: Rows | X,
    gate: PackedWeight,
    up: PackedWeight,
    ids: X | None,
    biases: tuple[X, X] | None = None,
    activation: int = 0,
    slots: X | None = None,
    down: PackedWeight | None = None,
) -> X | Q8:
    """The activation of x @ gate.T and x @ up.T of expert ids[p] and row p // (pairs / len(x)).

    x is (n, cols), `ids` (pairs,), None for one expert for all; the result (pairs, rows), of no use where an
    expert is not here. It is in 8 bits where `down`, which reads it, takes that.
    """
    rows = x if isinstance(x, Rows) else Rows(x)
    pairs = len(rows.x) if ids is None else len(ids)
    _expect(
        gate.shape == up.shape and rows.x.shape[1] == gate.cols and pairs % len(rows.x) == 0,
        rows.x,
        gate,
    )
    assert rows.x.stride(1) == 1 and (ids is None or ids.is_contiguous())
    if gate.dot is None or up.dot is None:
        return _hidden_in_float(rows.x, gate, up, ids, biases, activation, slots)
    q8 = rows.for_weights([gate]).q8
    assert q8 is not None
    to_q8 = down is not None and down.dot is not None and gate.rows % BLOCK == 0
    tiles = _TO_Q8 if to_q8 else None
    tile = tile_for(gate.rows, gate.blocks, pairs, rows.x.device, tiles)
    if to_q8:
        made = Q8.empty(pairs, gate.rows, rows.x.device)
        y, y_factors = made.numbers, made.factors
    else:
        y = y_factors = torch.empty(pairs, gate.rows, device=rows.x.device)
    first, second = biases or (q8.factors, q8.factors)
    dots.swiglu[(-(-gate.rows // tile.rows), pairs)](
        *(y, y_factors, q8.numbers.view(torch.int32), q8.factors, ids, slots),
        *(gate.planes, gate.table, up.planes, up.table, gate.rows),
        *(gate.data.stride(0), up.data.stride(0), pairs // len(rows.x)),
        *(first, second, first.stride(0), second.stride(0)),
        BIASED=biases is not None,
        ACTIVATION=activation,
        GATE=gate.dot,
        UP=up.dot,
        ROWS=tile.rows,
        SPAN=tile.blocks,
        BLOCKS=gate.blocks,
        EVEN=gate.rows % tile.rows == 0,
        WIDTH=gate.rows if to_q8 else 0,
        num_warps=tile.warps,
        **early(rows.x.device),
    )
    return made if to_q8 else y


def _hidden_in_float(
    x: X,
    gate: PackedWeight,
    up: PackedWeight,
    ids: X | None,
    biases: tuple[X, X] | None,
    activation: int,
    slots: X | None,
) -> X:
    if ids is None:
        ids = torch.zeros(len(x), dtype=torch.int32, device=x.device)
    pairs = len(ids)
    tile = tile_for(gate.rows, gate.blocks, pairs, x.device, _FLOAT_TILES)
    y = torch.empty(pairs, gate.rows, device=x.device)
    first, second = biases or (y, y)
    kernels.swiglu[(-(-gate.rows // tile.rows), pairs)](
        *(y, x, ids, slots, gate.planes, gate.table, up.planes, up.table),
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
        **early(x.device),
    )
    return y


def down_add(
    hidden: X | Q8,
    down: PackedWeight,
    ids: X,
    weights: X,
    residual: X,
    bias: X | None = None,
    slots: X | None = None,
) -> None:
    """residual (n, rows) += the products of hidden (n * top_k, cols) with experts ids, with their bias, times
    weights.

    ids and weights are (n, top_k), contiguous; nothing is added for what is not here.
    """
    n, top_k = ids.shape
    given = hidden.numbers if isinstance(hidden, Q8) else hidden
    fits = given.shape == (n * top_k, down.cols) and residual.shape == (n, down.rows)
    _expect(fits and weights.shape == ids.shape and weights.is_contiguous(), given, down)
    assert given.is_contiguous() and ids.is_contiguous() and residual.stride(1) == 1
    added = residual if bias is None else bias
    tiles = _FLOAT_TILES if down.dot is None else None
    blocks = down.blocks * top_k
    tile = tile_for(down.rows, blocks, n, given.device, tiles)
    grid = -(-down.rows // tile.rows), n
    if down.dot is None:
        kernels.down_add[grid](
            *(residual, hidden, ids, slots, weights, down.planes, down.table),
            *(down.rows, down.cols, down.blocks, residual.stride(0), down.data.stride(0), top_k),
            *(added, added.stride(0)),
            BIASED=bias is not None,
            DECODE=down.format.decode,
            ROWS=tile.rows,
            BLOCKS=tile.blocks,
            num_warps=tile.warps,
            **early(given.device),
        )
        return
    q8 = hidden if isinstance(hidden, Q8) else quantise(hidden)
    dots.down_add[grid](
        *(residual, q8.numbers.view(torch.int32), q8.factors, ids, slots, weights),
        *(down.planes, down.table, down.rows, residual.stride(0), down.data.stride(0)),
        *(added, added.stride(0)),
        BIASED=bias is not None,
        DOT=down.dot,
        TOP_K=top_k,
        CHOICES=triton.next_power_of_2(top_k),
        ROWS=tile.rows,
        SPAN=tile.blocks,
        BLOCKS=down.blocks,
        EVEN=down.rows % tile.rows == 0,
        num_warps=tile.warps,
        **early(given.device),
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
