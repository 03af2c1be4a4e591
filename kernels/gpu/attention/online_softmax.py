"""What the attention kernels share: row tiles, the online softmax, and the merge of splits.

Flash-decoding (Dao et al., 2023): the rows of one KV head, which are (token, query head) pairs, form tiles;
the KV positions are divided into `splits` parts that are merged by their log-sum-exp. Lengths are read on
the device, so that a captured graph stays right as sequences grow.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.plan import AttentionPlan, feature_block
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.quant.q8 import Q8, store_q8
from kernels.gpu.sizes import BLOCK

LOG2_E = 1.4426950408889634


def check_launch(n: int, batch: Batch, plan: AttentionPlan, scratch: Scratch, *rows: X) -> None:
    """Raise ValueError where a batch or a buffer does not fit the plan."""
    if batch.sequences != plan.sequences:
        raise ValueError(f"a batch of {batch.sequences} sequences for {plan}")
    if plan.splits > 1 and len(scratch.sums) < n * plan.heads * plan.splits:
        raise ValueError(f"scratch for {len(scratch.sums)} parts; {n} tokens need more in {plan}")
    if any(row.stride(-1) != 1 for row in rows):
        raise ValueError("features must be contiguous")


def leaves_q8(plan: AttentionPlan) -> bool:
    """Whether `merge` runs and can leave its rows in 8 bits too: heads are whole blocks, a power of two of them."""
    return plan.splits > 1 and plan.value >= BLOCK and plan.value == feature_block(plan.value)


def merge(
    n: int, batch: Batch, plan: AttentionPlan, scratch: Scratch, out: X, q8: Q8 | None = None
) -> None:
    """Combine the splits of n tokens into `out`, and into `q8` (n, heads * value); nothing to do for one split."""
    if plan.splits == 1:
        return
    _merge[(n, plan.heads)](
        scratch.parts,
        scratch.sums,
        batch.offsets,
        out,
        None if q8 is None else q8.numbers,
        None if q8 is None else q8.factors,
        *out.stride()[:2],
        SEQUENCES=plan.sequences,
        HEADS=plan.heads,
        VALUE=plan.value,
        VALUE_BLOCK=feature_block(plan.value),
        SPLITS=plan.splits,
        SPLIT_BLOCK=triton.next_power_of_2(plan.splits),
        num_warps=4,
        **early(out.device),
    )


@triton.jit
def rows_of_tile(
    lengths: tl.tensor,
    offsets: tl.tensor,
    TILES: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SPLITS: tl.constexpr,
    WINDOW: tl.constexpr,
) -> tl.tensor:
    """What a program works on: (sequence, tokens, heads in the group, visible, begin, end).

    A row sees `visible` positions, 0 for rows beyond the tokens, and of those the last WINDOW, unless that
    is 0; `begin .. end - 1` is this split's part of what any row of the tile sees.
    """
    sequence = tl.program_id(0) // TILES
    first_row = tl.program_id(0) % TILES * ROWS
    row = first_row + tl.arange(0, ROWS)
    length = tl.load(lengths + sequence)
    first = tl.load(offsets + sequence)
    queries = tl.load(offsets + sequence + 1) - first
    token = row // GROUP
    past = length - queries
    visible = tl.where(token < queries, past + token + 1, 0)
    last = tl.minimum((first_row + ROWS - 1) // GROUP, queries - 1)
    seen = tl.where(first_row < queries * GROUP, past + last + 1, 0)
    if WINDOW:
        least = tl.maximum(past + first_row // GROUP + 1 - WINDOW, 0) // POSITIONS * POSITIONS
        span = tl.cdiv(tl.cdiv(tl.maximum(seen - least, 0), POSITIONS), SPLITS) * POSITIONS
        begin = least + tl.program_id(2) * span
    else:
        span = tl.cdiv(tl.cdiv(length, POSITIONS), SPLITS) * POSITIONS
        begin = tl.program_id(2) * span
    end = tl.minimum(begin + span, seen)
    return sequence, (first + token).to(tl.int64), row % GROUP, visible, begin, end


@triton.jit
def accumulate(
    scores: tl.tensor,
    values: tl.tensor,
    running_max: tl.tensor,
    running_sum: tl.tensor,
    attn_out: tl.tensor,
) -> tl.tensor:
    """One step of the online softmax in base 2 (Milakov and Gimelshein, 2018)."""
    top = tl.maximum(running_max, tl.max(scores, axis=1))
    safe = tl.where(top == float("-inf"), 0.0, top)
    shrink = tl.exp2(running_max - safe)
    weights = tl.exp2(scores - safe[:, None])
    running_sum = running_sum * shrink + tl.sum(weights, axis=1)
    attn_out = tl.dot(weights.to(values.dtype), values, attn_out * shrink[:, None])
    return top, running_sum, attn_out


@triton.jit
def finish(
    running_max: tl.tensor,
    running_sum: tl.tensor,
    attn_out: tl.tensor,
    token: tl.tensor,
    head: tl.tensor,
    real: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    HEADS: tl.constexpr,
    VALUE: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
) -> None:
    """Store a tile: the result itself, or this split's part of it."""
    e = tl.arange(0, VALUE_BLOCK)[None, :]
    attn_out = attn_out / tl.where(running_sum == 0.0, 1.0, running_sum)[:, None]
    mask = real[:, None] & (e < VALUE)
    if SPLITS == 1:
        target = out + token * out_token + head * out_head
        tl.store(target[:, None] + e, attn_out.to(out.dtype.element_ty), mask=mask)
    else:
        part = (token * HEADS + head) * SPLITS + tl.program_id(2)
        tl.store(parts + part[:, None] * VALUE + e, attn_out, mask=mask)
        tl.store(sums + part, running_max + tl.log2(running_sum), mask=real)


@triton.jit
def _merge(
    parts: tl.tensor,
    sums: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    numbers: tl.tensor,
    factors: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    SEQUENCES: tl.constexpr,
    HEADS: tl.constexpr,
    VALUE: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLIT_BLOCK: tl.constexpr,
) -> None:
    behind_previous()
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    real = token < tl.load(offsets + SEQUENCES)
    split = tl.arange(0, SPLIT_BLOCK)
    first = (token * HEADS + head) * SPLITS
    counted = real & (split < SPLITS)
    logs = tl.load(sums + first + split, mask=counted, other=float("-inf"))
    top = tl.max(logs, axis=0)
    safe = tl.where(top == float("-inf"), 0.0, top)
    weight_sum = tl.sum(tl.exp2(logs - safe), axis=0)
    e = tl.arange(0, VALUE_BLOCK)
    inside = real & (e < VALUE)
    attn_out = tl.zeros([VALUE_BLOCK], tl.float32)
    # Several at a time: one after another they would each wait for the memory.
    SOME: tl.constexpr = min(SPLIT_BLOCK, 8)
    for start in range(0, SPLITS, SOME):
        s = start + tl.arange(0, SOME)
        there = real & (s < SPLITS)
        share = tl.exp2(tl.load(sums + first + s, mask=there, other=float("-inf")) - safe)
        some = (first + s)[:, None] * VALUE + e[None, :]
        found = tl.load(parts + some, mask=there[:, None] & inside[None, :], other=0.0)
        attn_out += tl.sum(found * share[:, None], axis=0)
    attn_out = attn_out / tl.where(weight_sum == 0.0, 1.0, weight_sum)
    tl.store(
        out + token * out_token + head * out_head + e,
        attn_out.to(out.dtype.element_ty),
        mask=inside,
    )
    if numbers is not None:
        numbers += token * (HEADS * VALUE)
        factors += token * (HEADS * VALUE // 32 * 4)
        store_q8(attn_out, head * VALUE, numbers, factors, HEADS * VALUE, VALUE_BLOCK)
