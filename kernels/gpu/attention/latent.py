"""Absorbed multi-head latent attention (DeepSeek-V2, 2024) over the paged latent cache in Triton.

One KV head serves all query heads: a cached row is [latent, rotated tail], and its latent part is the value
too, so that it is read once for both. The products with k_b and v_b are the caller's.
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


def latent_attention(
    q_latent: X,
    q_rope: X,
    cache: Rows,
    batch: Batch,
    scale: float,
    plan: AttentionPlan,
    scratch: Scratch,
    out: X,
) -> None:
    """out = softmax([q_latent, q_rope] @ rows.T * scale) @ the latent part of rows.

    q_latent is (n, heads, latent), already multiplied by k_b; q_rope (n, heads, rope); out (n, heads,
    latent), to be multiplied by v_b; each of any float type. cache is one layer's, with one head of
    latent + rope features and the new tokens' rows in it. Rows of padding tokens are left alone.
    """
    (n, heads, latent), rope = q_latent.shape, q_rope.shape[2]
    if (heads, latent, latent + rope) != (
        plan.heads,
        plan.value,
        plan.key,
    ) or out.shape != q_latent.shape:
        raise ValueError(f"q {tuple(q_latent.shape)} + {rope}, out {tuple(out.shape)} for {plan}")
    if q_rope.shape[:2] != (n, heads) or cache.shape != (1, latent + rope):
        raise ValueError(f"q_rope {tuple(q_rope.shape)}, cache {cache.shape} for {plan}")
    check_launch(n, batch, plan, scratch, q_latent, q_rope, out)
    _latent_attention[plan.grid](
        q_latent,
        q_rope,
        *cache.planes,
        out,
        scratch.parts,
        scratch.sums,
        batch.lengths,
        batch.offsets,
        batch.pages,
        scale * LOG2_E,
        *q_latent.stride()[:2],
        *q_rope.stride()[:2],
        *out.stride()[:2],
        batch.pages.stride(0),
        TILES=plan.tiles,
        HEADS=heads,
        PAGE_SIZE=cache.page_size,
        LATENT=latent,
        ROPE=rope,
        LATENT_BLOCK=feature_block(latent),
        ROPE_BLOCK=feature_block(rope),
        ROWS=plan.rows,
        POSITIONS=plan.positions,
        SPLITS=plan.splits,
        STAGES=plan.stages,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    merge(n, batch, plan, scratch, out)


@triton.jit
def _latent_attention(
    q_latent: tl.tensor,
    q_rope: tl.tensor,
    cache: tl.tensor,
    scales: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    sums: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    scale: tl.tensor,
    latent_token: tl.tensor,
    latent_head: tl.tensor,
    rope_token: tl.tensor,
    rope_head: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    pages_stride: tl.tensor,
    TILES: tl.constexpr,
    HEADS: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    LATENT_BLOCK: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIONS: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    sequence, token, head, visible, begin, end = rows_of_tile(
        lengths, offsets, TILES, HEADS, ROWS, POSITIONS, SPLITS, 0
    )
    WIDTH: tl.constexpr = LATENT + ROPE
    real = visible > 0
    d = tl.arange(0, LATENT_BLOCK)[None, :]
    e = tl.arange(0, ROPE_BLOCK)[None, :]
    from_q = q_latent + (token * latent_token + head * latent_head)[:, None] + d
    queries = tl.load(from_q, mask=real[:, None] & (d < LATENT), other=0.0).to(tl.float16)
    from_q = q_rope + (token * rope_token + head * rope_head)[:, None] + e
    rotated = tl.load(from_q, mask=real[:, None] & (e < ROPE), other=0.0).to(tl.float16)
    running_max = tl.full([ROWS], float("-inf"), tl.float32)
    running_sum = tl.zeros([ROWS], tl.float32)
    attn_out = tl.zeros([ROWS, LATENT_BLOCK], tl.float32)
    for start in tl.range(begin, end, POSITIONS, num_stages=STAGES):
        position = start + tl.arange(0, POSITIONS)
        inside = position < end
        page, slot = kv_slot(sequence, position, inside, pages, pages_stride, PAGE_SIZE, 0)
        row = page * PAGE_SIZE + slot
        latent = load_rows(cache, scales, row, inside, WIDTH, 0, LATENT, LATENT_BLOCK)
        value = latent
        if cache.dtype.element_ty == tl.int8:
            # A load of its own, because loads whose result two products take are not made ahead of time.
            value = load_rows(cache, scales, row, inside, WIDTH, 0, LATENT, LATENT_BLOCK, ".ca")
        tail = load_rows(cache, scales, row, inside, WIDTH, LATENT, ROPE, ROPE_BLOCK)
        scores = tl.dot(rotated, tl.trans(tail))
        scores = tl.dot(queries, tl.trans(latent), scores) * scale
        seen = inside[None, :] & (position[None, :] < visible[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        running_max, running_sum, attn_out = accumulate(
            scores, value, running_max, running_sum, attn_out
        )
    finish(
        running_max, running_sum, attn_out, token, head, real, out, parts, sums, out_token, out_head,
        HEADS, LATENT, LATENT_BLOCK, SPLITS,
    )  # fmt: skip
