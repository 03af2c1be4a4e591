"""Causal grouped-query attention over the paged cache in Triton, for decode and prefill alike.

Knows where queries, keys and values lie; `kernels.gpu.online_softmax` has the arithmetic. Scores are
never written to memory.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.attention_plan import AttentionPlan, Scratch, feature_block
from kernels.gpu.batch import Batch, place
from kernels.gpu.online_softmax import (
    LOG2_E,
    accumulate,
    check_launch,
    finish,
    merge,
    rows_of_tile,
)


def attention(
    q: X,
    keys: X,
    values: X,
    batch: Batch,
    scale: float,
    plan: AttentionPlan,
    scratch: Scratch,
    out: X,
) -> None:
    """out = softmax(q @ keys.T * scale) @ values over what each token may see.

    q is (n, heads, key) and out (n, heads, value), of any float type; keys and values are one layer's
    (pages, page_size, kv_heads, …) float16. The new tokens' keys are in the cache already. Query head h
    reads KV head h * kv_heads // heads. Rows of padding tokens are left as they were.
    """
    n, page_size = len(q), keys.shape[1]
    if q.shape != (n, plan.heads, plan.key) or out.shape != (n, plan.heads, plan.value):
        raise ValueError(f"q {tuple(q.shape)} and out {tuple(out.shape)} for {plan}")
    if keys.shape[2:] != (plan.kv_heads, plan.key) or values.shape[2:] != (
        plan.kv_heads,
        plan.value,
    ):
        raise ValueError(f"keys {tuple(keys.shape)}, values {tuple(values.shape)} for {plan}")
    check_launch(n, batch, plan, scratch, q, keys, values, out)
    _attention[plan.grid](
        q,
        keys,
        values,
        out,
        scratch.parts,
        scratch.sums,
        batch.lengths,
        batch.offsets,
        batch.pages,
        scale * LOG2_E,
        *q.stride()[:2],
        *keys.stride()[:3],
        *values.stride()[:3],
        *out.stride()[:2],
        batch.pages.stride(0),
        TILES=plan.tiles,
        GROUP=plan.group,
        PAGE_SIZE=page_size,
        KEY=plan.key,
        VALUE=plan.value,
        KEY_BLOCK=feature_block(plan.key),
        VALUE_BLOCK=feature_block(plan.value),
        ROWS=plan.rows,
        POSITIONS=plan.positions,
        SPLITS=plan.splits,
        HEADS=plan.heads,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    merge(n, batch, plan, scratch, out)


@triton.jit
def _attention(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    scale: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    key_page: tl.tensor,
    key_slot: tl.tensor,
    key_head: tl.tensor,
    value_page: tl.tensor,
    value_slot: tl.tensor,
    value_head: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    pages_stride: tl.tensor,
    TILES: tl.constexpr,
    GROUP: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SPLITS: tl.constexpr,
    HEADS: tl.constexpr,
) -> None:
    sequence, token, member, visible, begin, end = rows_of_tile(
        lengths, offsets, TILES, GROUP, ROWS, POSITIONS, SPLITS
    )
    kv_head = tl.program_id(1)
    head = kv_head * GROUP + member
    real = visible > 0
    d = tl.arange(0, KEY_BLOCK)[None, :]
    e = tl.arange(0, VALUE_BLOCK)[None, :]
    from_q = q + (token * q_token + head * q_head)[:, None] + d
    queries = tl.load(from_q, mask=real[:, None] & (d < KEY), other=0.0).to(keys.dtype.element_ty)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    for start in range(begin, end, POSITIONS):
        position = start + tl.arange(0, POSITIONS)
        inside = position < end
        page, slot = place(sequence, position, inside, pages, pages_stride, PAGE_SIZE)
        from_k = keys + (page * key_page + slot * key_slot + kv_head * key_head)[:, None] + d
        k = tl.load(from_k, mask=inside[:, None] & (d < KEY), other=0.0)
        from_v = (
            values + (page * value_page + slot * value_slot + kv_head * value_head)[:, None] + e
        )
        v = tl.load(from_v, mask=inside[:, None] & (e < VALUE), other=0.0)
        scores = tl.dot(queries, tl.trans(k)) * scale
        seen = inside[None, :] & (position[None, :] < visible[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        peak, total, mixed = accumulate(scores, v, peak, total, mixed)
    finish(
        peak, total, mixed, token, head, real, out, parts, sums, out_token, out_head,
        HEADS, VALUE, VALUE_BLOCK, SPLITS,
    )  # fmt: skip
