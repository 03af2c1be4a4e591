"""A new token's attention in one launch: its heads' norms and RoPE, its key and value on their way to the cache, and
what it sees of it.

Every program rotates the queries of its KV head, a few hundred numbers. The split that the token's position belongs to
stores key and value before it reads them as all others: what is attended to is what the cache keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.attention.batch import Batch, kv_slot
from kernels.gpu.attention.grouped import attend, check_window
from kernels.gpu.attention.kv_cache import Rows, store_row
from kernels.gpu.attention.online_softmax import (
    LOG2_E,
    check_launch,
    finish,
    merge,
    rows_of_tile,
)
from kernels.gpu.attention.plan import AttentionPlan, feature_block
from kernels.gpu.attention.rope import (
    RopeTable,
    check_pairs,
    check_rows,
    rotated_head,
    rotated_rows,
)
from kernels.gpu.attention.scratch import Scratch
from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.memory.signals import fence
from kernels.gpu.quant.q8 import Q8


@dataclass(frozen=True, slots=True)
class NewToken:
    """One token's queries (1, heads, key), key (1, kv_heads, key) and value (1, kv_heads, value), neither normed nor
    rotated yet; norms of query and key heads, or None; whether values are normed; and the layer's cache."""

    q: X
    k: X
    v: X
    norms: tuple[X, X] | None
    norm_values: bool
    eps: float
    table: RopeTable
    keys: Rows
    values: Rows


def decodes(plan: AttentionPlan) -> bool:
    """Whether `decode` takes such a launch: one token, whose query heads are one tile."""
    return plan.sequences == plan.queries == plan.tiles == 1


def decode(
    token: NewToken,
    batch: Batch,
    scale: float,
    plan: AttentionPlan,
    scratch: Scratch,
    out: X,
    window: int = 0,
    sinks: X | None = None,
    q8: Q8 | None = None,
) -> None:
    """`append.rotate_and_append` and then `grouped.attention` of one token, whose queries stay as they are."""
    q, k, v, keys, values, table = (
        token.q, token.k, token.v, token.keys, token.values, token.table
    )  # fmt: skip
    check_window(plan, keys, window, sinks)
    if not decodes(plan) or out.shape != (1, plan.heads, plan.value):
        raise ValueError(f"out {tuple(out.shape)} for {plan}")
    check_rows("q", q, 1, plan.heads, plan.key)
    check_rows("k", k, 1, plan.kv_heads, plan.key)
    check_rows("v", v, 1, plan.kv_heads, plan.value)
    check_pairs(table, table.offset, plan.key)
    if (keys.shape, values.shape) != ((plan.kv_heads, plan.key), (plan.kv_heads, plan.value)):
        raise ValueError(f"keys {keys.shape}, values {values.shape} for {plan}")
    check_launch(1, batch, plan, scratch, q, out)
    q_norm, k_norm = token.norms or (k, k)
    _decode[plan.grid](
        *(q, k, v, q_norm, k_norm, *keys.planes, *values.planes, table.frequencies),
        *(out, out if sinks is None else sinks, scratch.parts, scratch.sums),
        *(batch.lengths, batch.offsets, batch.pages),
        *(scale * LOG2_E, token.eps, table.magnitude),
        *(q.stride(1), k.stride(1), v.stride(1), *out.stride()[:2], batch.pages.stride(0)),
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
        KV_HEADS=plan.kv_heads,
        OFFSET=table.offset,
        PAIRS=table.pairs,
        INTERLEAVED=table.interleaved,
        NORM=token.norms is not None,
        VALUE_NORM=token.norm_values,
        num_warps=plan.warps,
        num_stages=plan.stages,
        **early(q.device),
    )
    merge(1, batch, plan, scratch, out, q8)


@triton.jit
def _decode(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    frequencies: tl.tensor,
    out: tl.tensor,
    sinks: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    scale: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    q_head: tl.tensor,
    k_head: tl.tensor,
    v_head: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    pages_stride: tl.tensor,
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
    KV_HEADS: tl.constexpr,
    OFFSET: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
    VALUE_NORM: tl.constexpr,
) -> None:
    behind_previous()
    sequence, token, member, visible, begin, end = rows_of_tile(
        lengths, offsets, 1, GROUP, ROWS, POSITIONS, SPLITS, WINDOW
    )
    kv_head = tl.program_id(1)
    head = kv_head * GROUP + member
    real = visible > 0
    last = tl.load(lengths) - 1
    if (begin <= last) & (last < end):
        page, slot = kv_slot(sequence, last, last >= 0, pages, pages_stride, PAGE_SIZE, RING)
        row = (page * PAGE_SIZE + slot) * KV_HEADS + kv_head
        key = rotated_head(
            k + kv_head * k_head, k_norm, frequencies, last, eps, magnitude,
            KEY, KEY_BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
        )  # fmt: skip
        store_row(key, keys, key_scales, row, last >= 0, KEY, 0, KEY, KEY_BLOCK)
        e = tl.arange(0, VALUE_BLOCK)
        value = tl.load(v + kv_head * v_head + e, mask=e < VALUE, other=0.0).to(tl.float32)
        if VALUE_NORM:
            value = value * tl.rsqrt(tl.sum(value * value, axis=0) / VALUE + eps)
        store_row(value, values, value_scales, row, last >= 0, VALUE, 0, VALUE, VALUE_BLOCK)
        fence()  # other threads of this program read them, maybe past their own cache
    queries = rotated_rows(
        q + head * q_head, real, q_norm, frequencies, last, eps, magnitude,
        KEY, KEY_BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
    ).to(tl.float16)  # fmt: skip
    running_max, running_sum, attn_out = attend(
        queries, keys, key_scales, values, value_scales, sinks, sequence, head, kv_head, visible, begin, end,
        scale, pages, pages_stride, PAGE_SIZE, RING, WINDOW, SINKS, KEY, VALUE, KEY_BLOCK, VALUE_BLOCK, ROWS,
        POSITIONS, STAGES, KV_HEADS,
    )  # fmt: skip
    finish(
        running_max, running_sum, attn_out, token, head, real, out, parts, sums, out_token, out_head,
        KV_HEADS * GROUP, VALUE, VALUE_BLOCK, SPLITS,
    )  # fmt: skip
