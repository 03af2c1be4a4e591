"""The chosen experts of a few tokens in two launches, in float32: gate, up and SwiGLU, then down and the weighted
sum.

A token's experts differ, so that every weight is read for one row: these are GEMVs, as `quant.matmul_kernels`
has them, with the same decoders and the same order of a block's columns. `expert_dots` has the same with
activations in 8 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.dependents import behind_previous
from kernels.gpu.elementwise import activated


@triton.jit
def matrix_of(ids, slots):
    """The number of an expert's matrix, below zero where it has none here."""
    expert = tl.load(ids)
    if slots is not None:
        expert = tl.load(slots + tl.maximum(expert, 0), mask=expert >= 0, other=-1)
    return expert


@triton.jit
def swiglu(
    y,
    x,
    ids,
    slots,
    gate,
    gate_table,
    up,
    up_table,
    rows,
    cols,
    blocks,
    x_stride,
    gate_bytes,
    up_bytes,
    top_k,
    gate_bias,
    up_bias,
    gate_bias_stride,
    up_bias_stride,
    BIASED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    DECODE_GATE: tl.constexpr,
    DECODE_UP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """y[p] = activation of x[p // top_k] @ gate[ids[p]].T and x[p // top_k] @ up[ids[p]].T: (pairs, rows).

    Where there are `slots`, an id's matrix is slots[id]. For those below zero nothing is read, and nobody reads
    the result. `gate` and `up` are planes, their matrices so many bytes apart. The grid is (row tiles, pairs).
    """
    behind_previous()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, None, :, None]
    lane = tl.arange(0, 4)[None, None, None, :]
    pair = tl.program_id(1).to(tl.int64)
    expert = matrix_of(ids + pair, slots)
    end = tl.where(expert < 0, 0, blocks)
    expert = tl.maximum(expert, 0).to(tl.int64)
    x += pair // top_k * x_stride
    first = tl.zeros([1, BLOCKS, ROWS, 4], tl.float32)
    second = tl.zeros([1, BLOCKS, ROWS, 4], tl.float32)
    slots = (0, 1, 2, 3, 4, 5, 6, 7)
    for start in range(0, end, BLOCKS):
        block = start + tl.arange(0, BLOCKS)[None, :, None, None]
        mask = (row < rows) & (block < blocks)
        at = row.to(tl.int64) * blocks + block
        g = DECODE_GATE(gate, gate_table, expert * gate_bytes, at, lane, mask, slots)
        u = DECODE_UP(up, up_table, expert * up_bytes, at, lane, mask, slots)
        for k in tl.static_range(8):
            col = tl.broadcast_to(block * 32 + 4 * k + lane, g[k].shape)
            values = tl.load(x + col, mask=col < cols, other=0.0)
            first += g[k] * values
            second += u[k] * values
    g, u = tl.sum(tl.sum(first, 3), 1), tl.sum(tl.sum(second, 3), 1)
    out = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :]
    if BIASED:
        g += tl.load(gate_bias + expert * gate_bias_stride + out, mask=out < rows, other=0.0)
        u += tl.load(up_bias + expert * up_bias_stride + out, mask=out < rows, other=0.0)
    hidden = activated(g, u, ACTIVATION)
    tl.store(y + pair * rows + out, hidden, mask=out < rows)


@triton.jit
def down_add(
    residual,
    hidden,
    ids,
    slots,
    weights,
    planes,
    table,
    rows,
    cols,
    blocks,
    residual_stride,
    matrix_bytes,
    top_k,
    bias,
    bias_stride,
    BIASED: tl.constexpr,
    DECODE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """residual[t] += sum over k of weights[t, k] * (hidden[t, k] @ W[ids[t, k]].T + bias[ids[t, k]]), but for
    ids, or the slots of ids, below zero.

    hidden is (tokens, top_k, cols). The grid is (row tiles, tokens): one program adds up a token's
    experts, whose blocks it takes as one row of top_k * blocks, since an expert's alone are few.
    """
    behind_previous()
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, None, :, None]
    lane = tl.arange(0, 4)[None, None, None, :]
    token = tl.program_id(1).to(tl.int64)
    ids += token * top_k
    weights += token * top_k
    hidden += token * top_k * cols
    total = tl.zeros([1, BLOCKS, ROWS, 4], tl.float32)
    for start in range(0, top_k * blocks, BLOCKS):
        index = start + tl.arange(0, BLOCKS)[None, :, None, None]
        choice, block = index // blocks, index % blocks
        expert = tl.load(ids + choice, mask=choice < top_k, other=-1)
        if slots is not None:
            expert = tl.load(slots + expert, mask=expert >= 0, other=-1)
        here = expert >= 0
        weight = tl.load(weights + choice, mask=here, other=0.0)
        first = tl.where(here, expert, 0).to(tl.int64) * matrix_bytes
        at = row.to(tl.int64) * blocks + block
        w = DECODE(planes, table, first, at, lane, (row < rows) & here, (0, 1, 2, 3, 4, 5, 6, 7))
        for k in tl.static_range(8):
            col = tl.broadcast_to(block * 32 + 4 * k + lane, w[k].shape)
            values = tl.load(hidden + choice * cols + col, mask=here & (col < cols), other=0.0)
            total += w[k] * (values * weight)
    out = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :]
    target = residual + token * residual_stride + out
    added = tl.sum(tl.sum(total, 3), 1) + tl.load(target, mask=out < rows, other=0.0)
    if BIASED:
        for choice in range(top_k):
            expert = matrix_of(ids + choice, slots)
            here = (out < rows) & (expert >= 0)
            from_bias = bias + tl.maximum(expert, 0).to(tl.int64) * bias_stride + out
            added += tl.load(weights + choice) * tl.load(from_bias, mask=here, other=0.0)
    tl.store(target, added, mask=out < rows)
