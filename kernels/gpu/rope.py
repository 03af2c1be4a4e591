"""Head norms, rotary embedding and the append to the paged f16 cache, in one kernel a layer.

Knows the feature layouts of grouped-query and latent heads. Angles are exact at every position: a
frequency is kept as a 64-bit fixed-point fraction of a turn, so that position * frequency wraps around
modulo one turn by itself, where a float32 product would be off by 0.004 rad at position 65536.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.batch import Batch, locate, place
from kernels.ops import Rope

_RADIANS = tl.constexpr(2 * math.pi / 2**32)


@dataclass(frozen=True, slots=True)
class RopeTable:
    """`kernels.ops.Rope` on the device: `turns` (pairs,) int64, 2**64 being one turn a position."""

    turns: X
    interleaved: bool
    offset: int
    magnitude: float

    @property
    def pairs(self) -> int:
        return len(self.turns)


def rope_table(rope: Rope, device: torch.device | str) -> RopeTable:
    """The table of a plain or YaRN rope; frequencies are radians a position."""
    if not rope.frequencies:
        raise ValueError("a rope without frequencies")
    turns = [round(f / (2 * math.pi) * 2**64) % 2**64 for f in rope.frequencies]
    table = torch.from_numpy(np.array(turns, np.uint64).view(np.int64)).to(device)
    return RopeTable(table, rope.interleaved, rope.offset, rope.magnitude)


def rope_append(
    q: X,
    k: X,
    v: X,
    norms: tuple[X, X] | None,
    eps: float,
    table: RopeTable,
    batch: Batch,
    keys: X,
    values: X,
    q_out: X,
) -> None:
    """Per head: RMSNorm of q and k (when `norms`), rope of both; k and v go to the cache.

    q is (n, heads, key), k (n, kv_heads, key), v (n, kv_heads, value); keys and values are one layer's
    (pages, page_size, kv_heads, …) float16. The turned q goes to `q_out` (n, heads, key), of any float
    type, which must not overlap q: neighbouring threads still read it.
    """
    (n, heads, key), (kv_heads, value) = q.shape, v.shape[1:]
    page_size = keys.shape[1]
    _check_shape("k", k, n, kv_heads, key)
    _check_shape("v", v, n, kv_heads, value)
    _check_shape("q_out", q_out, n, heads, key)
    _check_shape("keys", keys, keys.shape[0], page_size, kv_heads, key)
    _check_shape("values", values, keys.shape[0], page_size, kv_heads, value)
    if table.offset + 2 * table.pairs > key or q_out.data_ptr() == q.data_ptr():
        raise ValueError(
            f"{table.pairs} pairs from {table.offset} of {key} features, or q in place"
        )
    _rope_append[(n, heads + 2 * kv_heads)](
        q,
        k,
        v,
        q if norms is None else norms[0],
        k if norms is None else norms[1],
        q_out,
        keys,
        values,
        table.turns,
        batch.lengths,
        batch.offsets,
        batch.pages,
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        *q_out.stride()[:2],
        *keys.stride()[:3],
        *values.stride()[:3],
        batch.pages.stride(0),
        eps,
        table.magnitude,
        SEQUENCES=batch.sequences,
        SLOTS=triton.next_power_of_2(batch.sequences),
        PAGE_SIZE=page_size,
        HEADS=heads,
        KV_HEADS=kv_heads,
        KEY=key,
        VALUE=value,
        KEY_BLOCK=triton.next_power_of_2(key),
        VALUE_BLOCK=triton.next_power_of_2(value),
        OFFSET=table.offset,
        PAIRS=table.pairs,
        INTERLEAVED=table.interleaved,
        NORM=norms is not None,
        num_warps=1,
    )


def latent_append(
    q_rope: X,
    kv: X,
    norm: X,
    eps: float,
    table: RopeTable,
    batch: Batch,
    cache: X,
    q_out: X,
) -> None:
    """MLA: rope the tail of every head; [RMSNorm(latent), rope(tail)] of kv goes to the cache.

    q_rope is (n, heads, rope), the view of q behind its first `nope` features; its turned form goes to
    `q_out`, same shape, not overlapping. kv is (n, latent + rope), norm (latent,), cache one layer's
    (pages, page_size, 1, latent + rope) float16. `table.offset` is not used: the view has it.
    """
    n, heads, turned = q_rope.shape
    latent, page_size = kv.shape[1] - turned, cache.shape[1]
    _check_shape("q_out", q_out, n, heads, turned)
    _check_shape("kv", kv, n, latent + turned)
    _check_shape("norm", norm, latent)
    _check_shape("cache", cache, cache.shape[0], page_size, 1, latent + turned)
    if turned != 2 * table.pairs or latent < 1 or q_out.data_ptr() == q_rope.data_ptr():
        raise ValueError(
            f"{table.pairs} pairs for {turned} of {kv.shape[1]} features, or q in place"
        )
    _latent_append[(n, heads + 1)](
        q_rope,
        kv,
        norm,
        q_out,
        cache,
        table.turns,
        batch.lengths,
        batch.offsets,
        batch.pages,
        *q_rope.stride()[:2],
        kv.stride(0),
        *q_out.stride()[:2],
        *cache.stride()[:2],
        batch.pages.stride(0),
        eps,
        table.magnitude,
        SEQUENCES=batch.sequences,
        SLOTS=triton.next_power_of_2(batch.sequences),
        PAGE_SIZE=page_size,
        HEADS=heads,
        LATENT=latent,
        ROPE=turned,
        LATENT_BLOCK=triton.next_power_of_2(latent),
        ROPE_BLOCK=triton.next_power_of_2(turned),
        INTERLEAVED=table.interleaved,
        num_warps=2,
    )


def _check_shape(name: str, x: X, *shape: int) -> None:
    if tuple(x.shape) != shape or x.stride(-1) != 1:
        raise ValueError(f"{name} is {tuple(x.shape)} with strides {x.stride()}, not {shape}")


@triton.jit
def _turned(
    row: tl.tensor,
    weight: tl.tensor,
    turns: tl.tensor,
    position: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
) -> tl.tensor:
    """The normed and turned features of one head, (BLOCK,) float32. Feature d meets its partner."""
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    local = d - OFFSET
    rotated = (local >= 0) & (local < 2 * PAIRS)
    if INTERLEAVED:
        pair = local // 2
        first = local % 2 == 0
        partner = d + tl.where(first, 1, -1)
    else:
        first = local < PAIRS
        pair = tl.where(first, local, local - PAIRS)
        partner = d + tl.where(first, PAIRS, -PAIRS)
    x = tl.load(row + d, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(row + partner, mask=rotated, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt(tl.sum(x * x, axis=0) / FEATURES + eps)
        x = x * scale * tl.load(weight + d, mask=inside, other=0.0)
        y = y * scale * tl.load(weight + partner, mask=rotated, other=0.0)
    turn = tl.load(turns + pair, mask=rotated, other=0) * position.to(tl.int64)
    angle = (turn >> 32).to(tl.float32) * _RADIANS
    cos = tl.cos(angle) * magnitude
    sin = tl.sin(angle) * magnitude
    return tl.where(rotated, x * cos + tl.where(first, -y, y) * sin, x)


@triton.jit
def _rope_append(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    q_out: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    turns: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    k_token: tl.tensor,
    k_head: tl.tensor,
    v_token: tl.tensor,
    v_head: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    key_page: tl.tensor,
    key_slot: tl.tensor,
    key_head: tl.tensor,
    value_page: tl.tensor,
    value_slot: tl.tensor,
    value_head: tl.tensor,
    pages_stride: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    SEQUENCES: tl.constexpr,
    SLOTS: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
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
) -> None:
    token = tl.program_id(0)
    head = tl.program_id(1)
    sequence, position = locate(token, lengths, offsets, SEQUENCES, SLOTS)
    real = sequence < SEQUENCES
    page, slot = place(sequence, position, real, pages, pages_stride, PAGE_SIZE)
    row = token.to(tl.int64)
    d = tl.arange(0, KEY_BLOCK)
    # Names differ between the branches: the compiler would join them, and their types differ.
    if head < HEADS:
        turned_q = _turned(
            q + row * q_token + head * q_head, q_norm, turns, position, eps, magnitude,
            KEY, KEY_BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
        )  # fmt: skip
        to_q = q_out + row * out_token + head * out_head
        tl.store(to_q + d, turned_q.to(q_out.dtype.element_ty), mask=(d < KEY) & real)
    elif head < HEADS + KV_HEADS:
        from_k = k + row * k_token + (head - HEADS) * k_head
        turned_k = _turned(
            from_k, k_norm, turns, position, eps, magnitude,
            KEY, KEY_BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
        )  # fmt: skip
        to_k = keys + page * key_page + slot * key_slot + (head - HEADS) * key_head
        tl.store(to_k + d, turned_k.to(keys.dtype.element_ty), mask=(d < KEY) & real)
    else:
        h = head - HEADS - KV_HEADS
        e = tl.arange(0, VALUE_BLOCK)
        y = tl.load(v + row * v_token + h * v_head + e, mask=e < VALUE, other=0.0)
        to_v = values + page * value_page + slot * value_slot + h * value_head
        tl.store(to_v + e, y.to(values.dtype.element_ty), mask=(e < VALUE) & real)


@triton.jit
def _latent_append(
    q: tl.tensor,
    kv: tl.tensor,
    norm: tl.tensor,
    q_out: tl.tensor,
    cache: tl.tensor,
    turns: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    pages: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    kv_token: tl.tensor,
    out_token: tl.tensor,
    out_head: tl.tensor,
    cache_page: tl.tensor,
    cache_slot: tl.tensor,
    pages_stride: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    SEQUENCES: tl.constexpr,
    SLOTS: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    LATENT_BLOCK: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
    INTERLEAVED: tl.constexpr,
) -> None:
    token = tl.program_id(0)
    head = tl.program_id(1)
    sequence, position = locate(token, lengths, offsets, SEQUENCES, SLOTS)
    real = sequence < SEQUENCES
    row = token.to(tl.int64)
    d = tl.arange(0, ROPE_BLOCK)
    if head < HEADS:
        turned_q = _turned(
            q + row * q_token + head * q_head, norm, turns, position, eps, magnitude,
            ROPE, ROPE_BLOCK, 0, ROPE // 2, INTERLEAVED, False,
        )  # fmt: skip
        to_q = q_out + row * out_token + head * out_head
        tl.store(to_q + d, turned_q.to(q_out.dtype.element_ty), mask=(d < ROPE) & real)
    else:
        page, slot = place(sequence, position, real, pages, pages_stride, PAGE_SIZE)
        to_row = cache + page * cache_page + slot * cache_slot
        e = tl.arange(0, LATENT_BLOCK)
        y = tl.load(kv + row * kv_token + e, mask=e < LATENT, other=0.0).to(tl.float32)
        y = y * tl.rsqrt(tl.sum(y * y, axis=0) / LATENT + eps)
        y = y * tl.load(norm + e, mask=e < LATENT, other=0.0)
        tl.store(to_row + e, y.to(cache.dtype.element_ty), mask=(e < LATENT) & real)
        tail = _turned(
            kv + row * kv_token + LATENT, norm, turns, position, eps, magnitude,
            ROPE, ROPE_BLOCK, 0, ROPE // 2, INTERLEAVED, False,
        )  # fmt: skip
        tl.store(to_row + LATENT + d, tail.to(cache.dtype.element_ty), mask=(d < ROPE) & real)
