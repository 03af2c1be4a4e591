"""Keys and values on their way to the paged KV cache: head norms and RoPE, then storing.

The feature layouts of grouped-query and latent rows are here; how a row's numbers are stored is
`kv_cache`'s.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.attention.batch import Batch, kv_slot, locate
from kernels.gpu.attention.kv_cache import Rows, store_row
from kernels.gpu.attention.rope import RopeTable, check_pairs, check_rows, rotated_head
from kernels.gpu.dependents import behind_previous, early
from kernels.ops import Q8_BLOCK


def rotate_and_append(
    q: X,
    k: X,
    v: X,
    norms: tuple[X, X] | None,
    norm_values: bool,
    eps: float,
    table: RopeTable,
    batch: Batch,
    keys: Rows,
    values: Rows,
) -> None:
    """`rope.rotate` of q (n, heads, key), in place, and `append_heads` of k and v, in one launch.

    `norms` are those of q's heads and of k's.
    """
    heads = q.shape[1]
    check_rows("q", q, len(k), heads, k.shape[2])
    q_norm, k_norm = norms or (None, None)
    _append(k, v, k_norm, norm_values, eps, table, batch, keys, values, q, q_norm)


def append_heads(
    k: X,
    v: X,
    norm: X | None,
    norm_values: bool,
    eps: float,
    table: RopeTable,
    batch: Batch,
    keys: Rows,
    values: Rows,
) -> None:
    """Per head: RMSNorm of k (when `norm`, (key,)) and rope, RMSNorm of v (when
    `norm_values`); k and v go to the cache.

    k is (n, kv_heads, key) and v (n, kv_heads, value), each token's heads one after another; neither
    changes. keys and values are one layer's.
    """
    _append(k, v, norm, norm_values, eps, table, batch, keys, values, None, None)


def _append(
    k: X,
    v: X,
    norm: X | None,
    norm_values: bool,
    eps: float,
    table: RopeTable,
    batch: Batch,
    keys: Rows,
    values: Rows,
    q: X | None,
    q_norm: X | None,
) -> None:
    (n, kv_heads, key), value = k.shape, v.shape[2]
    check_rows("k", k, n, kv_heads, key)
    check_rows("v", v, n, kv_heads, value)
    check_pairs(table, table.offset, key)
    if (keys.shape, values.shape) != ((kv_heads, key), (kv_heads, value)):
        raise ValueError(f"k {tuple(k.shape)}, v {tuple(v.shape)} for {keys.shape}, {values.shape}")
    if kv_heads > 1 and (k.stride(1), v.stride(1)) != (key, value):
        raise ValueError(f"heads are apart in k {k.stride()} or v {v.stride()}")
    heads = 0 if q is None else q.shape[1]
    first = k if q is None else q
    _append_heads[(n, heads + kv_heads)](
        first,
        k,
        v,
        k if q_norm is None else q_norm,
        k if norm is None else norm,
        *keys.planes,
        *values.planes,
        table.frequencies,
        batch.lengths,
        batch.offsets,
        batch.pages,
        *first.stride()[:2],
        k.stride(0),
        v.stride(0),
        batch.pages.stride(0),
        eps,
        table.magnitude,
        SEQUENCES=batch.sequences,
        SLOTS=triton.next_power_of_2(batch.sequences),
        PAGE_SIZE=keys.page_size,
        RING=keys.ring,
        HEADS=heads,
        KV_HEADS=kv_heads,
        KEY=key,
        VALUE=value,
        KEY_BLOCK=triton.next_power_of_2(key),
        VALUE_BLOCK=triton.next_power_of_2(value),
        OFFSET=table.offset,
        PAIRS=table.pairs,
        INTERLEAVED=table.interleaved,
        NORM=norm is not None,
        VALUE_NORM=norm_values,
        num_warps=1,
        **early(k.device),
    )


def append_latent(kv: X, norm: X, eps: float, table: RopeTable, batch: Batch, cache: Rows) -> None:
    """MLA: [RMSNorm(latent), rope(tail)] of kv goes to the cache.

    kv is (n, latent + rope), norm (latent,), cache one layer's with one head of latent + rope features.
    `table.offset` is not used: the tail follows the latent. Raises ValueError where the two would share
    a scale.
    """
    n, features = kv.shape
    (latent,) = norm.shape
    check_rows("kv", kv, n, features)
    if features != latent + 2 * table.pairs or cache.shape != (1, features):
        raise ValueError(f"{latent} + {2 * table.pairs} features of {features} for {cache.shape}")
    if cache.scales is not None and latent % Q8_BLOCK:
        raise ValueError(f"{latent} latent features in 8 bits: not a multiple of {Q8_BLOCK}")
    _append_latent[(n,)](
        kv,
        norm,
        *cache.planes,
        table.frequencies,
        batch.lengths,
        batch.offsets,
        batch.pages,
        kv.stride(0),
        batch.pages.stride(0),
        eps,
        table.magnitude,
        SEQUENCES=batch.sequences,
        SLOTS=triton.next_power_of_2(batch.sequences),
        PAGE_SIZE=cache.page_size,
        RING=cache.ring,
        LATENT=latent,
        ROPE=2 * table.pairs,
        LATENT_BLOCK=triton.next_power_of_2(latent),
        ROPE_BLOCK=triton.next_power_of_2(2 * table.pairs),
        INTERLEAVED=table.interleaved,
        num_warps=2,
    )


@triton.jit
def _append_heads(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    q_norm: tl.tensor,
    norm: tl.tensor,
    keys: tl.tensor,
    key_scales: tl.tensor,
    values: tl.tensor,
    value_scales: tl.tensor,
    frequencies: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    k_token: tl.tensor,
    v_token: tl.tensor,
    pages_stride: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    SEQUENCES: tl.constexpr,
    SLOTS: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    RING: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
    VALUE_NORM: tl.constexpr,
) -> None:
    """Programs of the first HEADS heads rotate queries, the others append keys and values."""
    behind_previous()
    token = tl.program_id(0)
    sequence, position = locate(token, lengths, offsets, SEQUENCES, SLOTS)
    real = sequence < SEQUENCES
    if tl.program_id(1) < HEADS:
        from_q = q + token.to(tl.int64) * q_token + tl.program_id(1) * q_head
        query = rotated_head(
            from_q, q_norm, frequencies, position, eps, magnitude,
            KEY, KEY_BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
        )  # fmt: skip
        tl.debug_barrier()  # a feature's neighbour has read it before it is written
        d = tl.arange(0, KEY_BLOCK)
        tl.store(from_q + d, query.to(q.dtype.element_ty), mask=(d < KEY) & real)
    else:
        head = tl.program_id(1) - HEADS
        page, slot = kv_slot(sequence, position, real, pages, pages_stride, PAGE_SIZE, RING)
        row = (page * PAGE_SIZE + slot) * KV_HEADS + head
        key = rotated_head(
            k + token.to(tl.int64) * k_token + head * KEY, norm, frequencies, position, eps,
            magnitude, KEY, KEY_BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
        )  # fmt: skip
        store_row(key, keys, key_scales, row, real, KEY, 0, KEY, KEY_BLOCK)
        e = tl.arange(0, VALUE_BLOCK)
        from_v = v + token.to(tl.int64) * v_token + head * VALUE + e
        value = tl.load(from_v, mask=e < VALUE, other=0.0).to(tl.float32)
        if VALUE_NORM:
            value = value * tl.rsqrt(tl.sum(value * value, axis=0) / VALUE + eps)
        store_row(value, values, value_scales, row, real, VALUE, 0, VALUE, VALUE_BLOCK)


@triton.jit
def _append_latent(
    kv: tl.tensor,
    norm: tl.tensor,
    cache: tl.tensor,
    scales: tl.tensor,
    frequencies: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    kv_token: tl.tensor,
    pages_stride: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    SEQUENCES: tl.constexpr,
    SLOTS: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    RING: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    LATENT_BLOCK: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
    INTERLEAVED: tl.constexpr,
) -> None:
    token = tl.program_id(0)
    sequence, position = locate(token, lengths, offsets, SEQUENCES, SLOTS)
    real = sequence < SEQUENCES
    page, slot = kv_slot(sequence, position, real, pages, pages_stride, PAGE_SIZE, RING)
    row = page * PAGE_SIZE + slot
    from_kv = kv + token.to(tl.int64) * kv_token
    d = tl.arange(0, LATENT_BLOCK)
    latent = tl.load(from_kv + d, mask=d < LATENT, other=0.0).to(tl.float32)
    latent = latent * tl.rsqrt(tl.sum(latent * latent, axis=0) / LATENT + eps)
    latent = latent * tl.load(norm + d, mask=d < LATENT, other=0.0)
    store_row(latent, cache, scales, row, real, LATENT + ROPE, 0, LATENT, LATENT_BLOCK)
    tail = rotated_head(
        from_kv + LATENT, norm, frequencies, position, eps, magnitude,
        ROPE, ROPE_BLOCK, 0, ROPE // 2, INTERLEAVED, False,
    )  # fmt: skip
    store_row(tail, cache, scales, row, real, LATENT + ROPE, LATENT, ROPE, ROPE_BLOCK)
