"""Causal grouped-query attention over the paged KV cache in Triton, for decode and prefill alike.

Loads queries, keys and values; `online_softmax` has the arithmetic. Scores are never written to memory.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.attention.batch import Batch, kv_slot
from kernels.gpu.attention.kv_cache import Rows, load_rows
from kernels.gpu.attention.online_softmax import (
    LOG2_E,
    accumulate,
    check_launch,
    finish,
    merge,
    rows_of_tile,
)
from kernels.gpu.attention.plan import AttentionPlan, feature_block
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.quant.q8 import Q8

_LOG2_E = tl.constexpr(LOG2_E)


def attention(
    q: X,
    keys: Rows,
    values: Rows,
    batch: Batch,
    scale: float,
    plan: AttentionPlan,
    scratch: Scratch,
    out: X,
    window: int = 0,
    sinks: X | None = None,
    q8: Q8 | None = None,
) -> None:
    """out = softmax(q @ keys.T * scale) @ values over what each token may see: the last `window`, or all.

    q is (n, heads, key) and out (n, heads, value), of any float type; keys and values are one layer's,
    the new tokens' among them. Query head h reads KV head h * kv_heads // heads. Rows of padding tokens
    are left as they were. `sinks` (heads,) float32 are one more score a head, without a value.
    `q8` gets the result in 8 bits too, where `leaves_q8` says that it does.
    """
    n = len(q)
    check_window(plan, keys, window, sinks)
    if q.shape != (n, plan.heads, plan.key) or out.shape != (n, plan.heads, plan.value):
        raise ValueError(f"q {tuple(q.shape)} and out {tuple(out.shape)} for {plan}")
    if (keys.shape, values.shape) != ((plan.kv_heads, plan.key), (plan.kv_heads, plan.value)):
        raise ValueError(f"keys {keys.shape}, values {values.shape} for {plan}")
    check_launch(n, batch, plan, scratch, q, out)
    _attention[plan.grid](
        q,
        *keys.planes,
        *values.planes,
        out,
        out if sinks is None else sinks,
        scratch.parts,
        scratch.sums,
        batch.lengths,
        batch.offsets,
        batch.pages,
        scale * LOG2_E,
        *q.stride()[:2],
        *out.stride()[:2],
        batch.pages.stride(0),
        TILES=plan.tiles,
        GROUP=plan.group,
        PAGE_SIZE=keys.page_size,
        RING=keys.ring,
        WINDOW=window,
        SINKS=sinks is not None,
        KEY=plan.key,
        VALUE=plan.value,
        KEY_BLOCK=feature_block(plan.key),
        VALUE_BLOCK=feature_block(plan.value),
        ROWS=plan.rows,
        POSITIONS=plan.positions,
        SPLITS=plan.splits,
        STAGES=plan.stages,
        HEADS=plan.heads,
        num_warps=plan.warps,
        num_stages=plan.stages,
        **early(q.device),
    )
    merge(n, batch, plan, scratch, out, q8)


def check_window(plan: AttentionPlan, keys: Rows, window: int, sinks: X | None) -> None:
    """Raise ValueError for a ring that does not hold what new tokens see, or sinks of other heads."""
    room = keys.ring * keys.page_size
    if window < 0 or (room and not 0 < window <= room):
        raise ValueError(f"a window of {window} positions in a ring of {room}")
    if sinks is not None and (sinks.shape != (plan.heads,) or not sinks.is_contiguous()):
        raise ValueError(f"sinks {tuple(sinks.shape)} for {plan.heads} heads")


@triton.jit
def _attention(
    q: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    out: tl.tensor,
    sinks: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    scale: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    pages_stride: tl.tensor,
    TILES: tl.constexpr,
    GROUP: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    RING: tl.constexpr,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
    HEADS: tl.constexpr,
) -> None:
    behind_previous()
    sequence, token, member, visible, begin, end = rows_of_tile(
        lengths, offsets, TILES, GROUP, ROWS, POSITIONS, SPLITS, WINDOW
    )
    kv_head = tl.program_id(1)
    head = kv_head * GROUP + member
    real = visible > 0
    d = tl.arange(0, KEY_BLOCK)[None, :]
    from_q = q + (token * q_token + head * q_head)[:, None] + d
    queries = tl.load(from_q, mask=real[:, None] & (d < KEY), other=0.0).to(tl.float16)
    running_max, running_sum, attn_out = attend(
        queries, keys, key_scales, values, value_scales, sinks, sequence, head, kv_head, visible, begin, end,
        scale, pages, pages_stride, PAGE_SIZE, RING, WINDOW, SINKS, KEY, VALUE, KEY_BLOCK, VALUE_BLOCK, ROWS,
        POSITIONS, STAGES, HEADS // GROUP,
    )  # fmt: skip
    finish(
        running_max, running_sum, attn_out, token, head, real, out, parts, sums, out_token, out_head,
        HEADS, VALUE, VALUE_BLOCK, SPLITS,
    )  # fmt: skip


@triton.jit
def attend(
    queries: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    sinks: tl.tensor,
    sequence: tl.tensor,
    head: tl.tensor,
    kv_head: tl.tensor,
    visible: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    scale: tl.tensor,
    pages: tl.tensor,
    pages_stride: tl.tensor,
    PAGE_SIZE: tl.constexpr,
    RING: tl.constexpr,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    STAGES: tl.constexpr,
    KV_HEADS: tl.constexpr,
) -> tl.tensor:
    """A tile's running maximum, sum and output over positions begin .. end - 1, of queries (ROWS, KEY_BLOCK)."""
    running_max = tl.full([ROWS], float("-inf"), tl.float32)
    running_sum = tl.zeros([ROWS], tl.float32)
    if SINKS:  # in the first split: what was seen before any position
        first = tl.program_id(2) == 0
        sink = tl.load(sinks + head, mask=(visible > 0) & first, other=float("-inf"))
        running_max = sink.to(tl.float32) * _LOG2_E
        running_sum = tl.where(first, 1.0, running_sum)
    attn_out = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    for start in tl.range(begin, end, POSITIONS, num_stages=STAGES):
        position = start + tl.arange(0, POSITIONS)
        inside = position < end
        page, slot = kv_slot(sequence, position, inside, pages, pages_stride, PAGE_SIZE, RING)
        row = (page * PAGE_SIZE + slot) * KV_HEADS + kv_head
        k = load_rows(keys, key_scales, row, inside, KEY, 0, KEY, KEY_BLOCK)
        v = load_rows(values, value_scales, row, inside, VALUE, 0, VALUE, VALUE_BLOCK)
        scores = tl.dot(queries, tl.trans(k)) * scale
        seen = inside[None, :] & (position[None, :] < visible[:, None])
        if WINDOW:
            seen &= position[None, :] >= visible[:, None] - WINDOW
        scores = tl.where(seen, scores, float("-inf"))
        running_max, running_sum, attn_out = accumulate(
            scores, v, running_max, running_sum, attn_out
        )
    return running_max, running_sum, attn_out
