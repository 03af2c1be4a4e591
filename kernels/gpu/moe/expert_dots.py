"""The chosen experts of a few tokens in two launches, with activations in 8 bits: see `expert_kernels`."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.dependents import behind_previous
from kernels.gpu.elementwise import activated
from kernels.gpu.moe.expert_kernels import matrix_of
from kernels.gpu.quant.q8 import store_q8
from kernels.gpu.quant.row_tiles import activations, contract, tile_rows
from kernels.gpu.quant.words import read_word, wide_product


@triton.jit
def swiglu(
    y,
    y_factors,
    numbers,
    factors,
    ids,
    slots,
    gate,
    gate_table,
    up,
    up_table,
    rows,
    gate_bytes,
    up_bytes,
    top_k,
    gate_bias,
    up_bias,
    gate_bias_stride,
    up_bias_stride,
    BIASED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GATE: tl.constexpr,
    UP: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCKS: tl.constexpr,
    EVEN: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """y[p] = activation of x[p // top_k] @ gate[ids[p]].T and x[p // top_k] @ up[ids[p]].T: (pairs, rows).

    Without ids there is one matrix for all. With a WIDTH, which is `rows`, y is in 8 bits, its factors
    `y_factors`; else it is float32. For what is not here nothing is read; its row is that of zeros.
    """
    zero = behind_previous()
    numbers, factors = numbers + zero, factors + zero
    tile = tl.program_id(0)
    pair = tl.program_id(1).to(tl.int64)
    expert = tl.cast(0, tl.int32)
    if ids is not None:
        expert = matrix_of(ids + pair, slots)
    end = tl.where(expert < 0, 0, BLOCKS)
    expert = tl.maximum(expert, 0).to(tl.int64)
    token = pair // top_k
    row = tile_rows(tile, rows, ROWS, EVEN) * BLOCKS
    first = tile.to(tl.int64) * (ROWS * BLOCKS)
    WHOLE: tl.constexpr = BLOCKS % SPAN == 0
    group = tl.arange(0, SPAN)[None, :] & 7
    gates = tl.zeros([ROWS, SPAN], tl.float32)
    ups = tl.zeros([ROWS, SPAN], tl.float32)
    for start in range(0, end, SPAN):
        block = start + tl.arange(0, SPAN)[None, :]
        inside = block < BLOCKS
        if not WHOLE:
            block = tl.minimum(block, BLOCKS - 1)
        of_token = token * BLOCKS
        x = activations(numbers + of_token * 8, factors + of_token * 4, block, inside, WHOLE)
        decoded = GATE(gate, gate_table, expert * gate_bytes, first, row, block, group)
        gates = contract(gates, decoded, x)
        decoded = UP(up, up_table, expert * up_bytes, first, row, block, group)
        ups = contract(ups, decoded, x)
    g, u = tl.sum(gates, 1), tl.sum(ups, 1)
    out = tile * ROWS + tl.arange(0, ROWS)
    if BIASED:
        g += tl.load(gate_bias + expert * gate_bias_stride + out, mask=out < rows, other=0.0)
        u += tl.load(up_bias + expert * up_bias_stride + out, mask=out < rows, other=0.0)
    hidden = activated(g, u, ACTIVATION)
    if WIDTH:
        of_pair = pair * (WIDTH // 32) * 4
        store_q8(hidden, tile * ROWS, y + pair * WIDTH, y_factors + of_pair, WIDTH, ROWS)
    else:
        tl.store(y + pair * rows + out, hidden, mask=out < rows)


@triton.jit
def down_add(
    residual,
    numbers,
    factors,
    ids,
    slots,
    weights,
    planes,
    table,
    rows,
    residual_stride,
    matrix_bytes,
    bias,
    bias_stride,
    BIASED: tl.constexpr,
    DOT: tl.constexpr,
    TOP_K: tl.constexpr,
    CHOICES: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCKS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """residual[t] += sum over k of weights[t, k] * (hidden[t, k] @ W[ids[t, k]].T + bias[ids[t, k]]), but for
    what is not here.

    The hidden rows are in 8 bits, (tokens, TOP_K, blocks). The grid is (row tiles, tokens): one program adds up
    a token's experts, whose blocks it takes as one row of TOP_K * BLOCKS, since an expert's alone are few.
    """
    zero = behind_previous()
    tile = tl.program_id(0)
    token = tl.program_id(1).to(tl.int64) + zero
    ids += token * TOP_K
    weights += token * TOP_K
    numbers += token * (TOP_K * BLOCKS * 8)
    factors += token * (TOP_K * BLOCKS * 4)
    k = tl.arange(0, CHOICES)
    matrices = tl.load(ids + k, mask=k < TOP_K, other=-1)
    if slots is not None:
        matrices = tl.load(slots + matrices, mask=matrices >= 0, other=-1)
    some = tl.max(matrices, axis=0)
    row = tile_rows(tile, rows, ROWS, EVEN) * BLOCKS
    first = tile.to(tl.int64) * (ROWS * BLOCKS)
    total = tl.zeros([ROWS, SPAN], tl.float32)
    index = tl.arange(0, SPAN)[None, :]
    choice, block, group = index // BLOCKS, index % BLOCKS, index & 7
    for _ in range(0, tl.where(some < 0, 0, TOP_K * BLOCKS), SPAN):
        inside = choice < TOP_K
        choice = tl.minimum(choice, TOP_K - 1)
        expert = read_word(ids + choice)
        if slots is not None:
            expert = read_word(slots + zero + tl.maximum(expert, 0)) | expert >> 31
        here = inside & (expert >= 0)
        # What is not here reads where another does, and is nothing.
        matrix = wide_product(tl.where(here, expert, some), matrix_bytes)
        weight = read_word(weights + choice).to(tl.float32, bitcast=True)
        at = choice * BLOCKS + block
        first_words, second_words, of_block = activations(numbers, factors, at, inside, True)
        weight = tl.where(here, weight, 0.0)
        weighted = (
            of_block[0] * weight, of_block[1] * weight, of_block[2] * weight, of_block[3] * weight
        )  # fmt: skip
        decoded = DOT(planes, table, matrix, first, row, block, group)
        total = contract(total, decoded, (first_words, second_words, weighted))
        # Steps are counted up: quotients in every one of them would cost as much as a quarter of the product.
        block += SPAN % BLOCKS
        choice += SPAN // BLOCKS + (block >= BLOCKS).to(tl.int32)
        block = tl.where(block >= BLOCKS, block - BLOCKS, block)
    out = tile * ROWS + tl.arange(0, ROWS)
    target = residual + token * residual_stride + out
    added = tl.sum(total, 1) + tl.load(target, mask=out < rows, other=0.0)
    if BIASED:
        for number in range(TOP_K):
            one = matrix_of(ids + number, slots)
            biased = (out < rows) & (one >= 0)
            from_bias = bias + tl.maximum(one, 0).to(tl.int64) * bias_stride + out
            added += tl.load(weights + number) * tl.load(from_bias, mask=biased, other=0.0)
    tl.store(target, added, mask=out < rows)
