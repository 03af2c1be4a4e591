"""Paged attention on a batch of sequences against float32, for caches of either kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gguf
import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels.gpu.attention.batch import Batch
from kernels.gpu.attention.grouped import attention
from kernels.gpu.attention.kv_cache import Rows
from kernels.gpu.attention.latent import latent_attention
from kernels.gpu.attention.plan import plan_attention, plan_latent_attention
from kernels.gpu.attention.scratch import Scratch
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal, unset

# q, k and v are multiples of 1/16, exact in float16; what is left is the rounding of the softmax weights.
TOLERANCE = 1e-3
PAGE = 4


def exact(seed: int, *shape: int) -> Any:
    return (normal(seed, *shape) * 16).round().clamp(-100, 100) / 16


def planes(x: Any) -> tuple[Any, Any, Any]:
    """x (…, features) as gguf-py makes Q8_0 of it: int8, float16 scales, and the values they stand for."""
    raw = gguf.quantize(x.cpu().numpy(), gguf.GGMLQuantizationType.Q8_0)
    blocks = raw.reshape(*x.shape[:-1], -1, 34)
    scales = torch.from_numpy(blocks[..., :2].copy().view(np.float16)[..., 0])
    numbers = torch.from_numpy(blocks[..., 2:].copy().view(np.int8))
    meant = (numbers * scales.float()[..., None]).flatten(-2)
    return numbers.flatten(-2).to(DEVICE), scales.to(DEVICE), meant.to(DEVICE)


class Cache:
    """Pages in shuffled order, with NaN where no position was written.

    `rows` is what kernels read: keys and values. `exact` has each sequence's, (length, kv_heads, …).
    """

    def __init__(
        self,
        lengths: tuple[int, ...],
        kv_heads: int,
        key: int,
        value: int,
        page: int,
        kind: str = "f16",
    ) -> None:
        counts = [-(-length // page) for length in lengths]
        order = np.random.default_rng(0).permutation(sum(counts) + 1).astype(np.int32)
        self.pages = np.split(order, np.cumsum(counts))[: len(lengths)]
        size = (len(order), page, kv_heads)
        self.rows = tuple(empty(size, features, kind) for features in (key, value))
        self.exact: list[tuple[Any, ...]] = []
        for s, length in enumerate(lengths):
            at = np.arange(length)
            page_of = torch.from_numpy(self.pages[s][at // page].astype(np.int64))
            place = page_of, torch.from_numpy(at % page)
            k, v = exact(10 + s, length, kv_heads, key), exact(20 + s, length, kv_heads, value)
            written = write(self.rows[0], place, k), write(self.rows[1], place, v)
            self.exact.append(written)


def empty(size: tuple[int, ...], features: int, kind: str) -> Rows:
    if kind == "f16":
        return Rows(unset(*size, features, dtype=torch.float16))
    numbers = torch.full((*size, features), 127, dtype=torch.int8, device=DEVICE)
    return Rows(numbers, unset(*size, features // 32, dtype=torch.float16))


def write(rows: Rows, place: Any, x: Any) -> Any:
    """Put x where it belongs; the values that the rows then stand for."""
    if rows.scales is None:
        rows.numbers[place] = x.half()
        return x
    rows.numbers[place], rows.scales[place], meant = planes(x)
    return meant


def wanted(q: Any, k: Any, v: Any, scale: float) -> Any:
    """q (n, heads, d) are the last n of the positions of k and v: (n, heads, value), float32."""
    q, k, v = (x.float().cpu().transpose(0, 1) for x in (q, k, v))
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    n, length = q.shape[1], k.shape[1]
    mask = torch.ones(n, length, dtype=torch.bool).tril(length - n)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1)


def run(
    lengths: tuple[int, ...],
    queries: tuple[int, ...],
    heads: int,
    kv_heads: int,
    key: int,
    value: int | None = None,
    page: int = PAGE,
    padding: int = 0,
    kind: str = "f16",
    **changes: int,
) -> None:
    """Attend with a batch and compare every sequence; `changes` go into the plan."""
    value = value or key
    cache = Cache(lengths, kv_heads, key, value, page, kind)
    batch = Batch.allocate(len(lengths), max(map(len, cache.pages)), DEVICE)
    batch.write(lengths, queries, cache.pages, page)
    n = sum(queries) + padding
    q, out, scale = exact(1, n, heads, key), unset(n, heads, value), 0.8 / key**0.5
    plan = plan_attention(len(lengths), max(queries), heads, kv_heads, key, value, max(lengths), 4)
    plan = replace(plan, **{"positions": 16, **changes})
    scratch = Scratch.allocate(plan, n, DEVICE)
    attention(q, *cache.rows, batch, scale, plan, scratch, out)
    begin = 0
    for new, (k, v) in zip(queries, cache.exact, strict=True):
        if new:
            got = out[begin : begin + new]
            assert error(got, wanted(q[begin : begin + new], k, v, scale)) < TOLERANCE
        begin += new
    assert torch.isnan(out[begin:]).all()


def run_latent(
    lengths: tuple[int, ...],
    queries: tuple[int, ...],
    heads: int,
    latent: int = 32,
    rope: int = 16,
    page: int = PAGE,
    kind: str = "f16",
    **changes: int,
) -> None:
    cache = Cache(lengths, 1, latent + rope, 32, page, kind)
    batch = Batch.allocate(len(lengths), max(map(len, cache.pages)), DEVICE)
    batch.write(lengths, queries, cache.pages, page)
    n, scale = sum(queries), 0.8 / (latent + rope) ** 0.5
    q, out = exact(1, n, heads, latent + rope), unset(n, heads, latent)
    plan = plan_latent_attention(len(lengths), max(queries), heads, latent, rope, max(lengths), 4)
    plan = replace(plan, **{"positions": 16, **changes})
    parts = q[..., :latent], q[..., latent:]
    latent_attention(
        *parts, cache.rows[0], batch, scale, plan, Scratch.allocate(plan, n, DEVICE), out
    )
    begin = 0
    for new, (rows, _) in zip(queries, cache.exact, strict=True):
        got = out[begin : begin + new]
        assert (
            error(got, wanted(q[begin : begin + new], rows, rows[..., :latent], scale)) < TOLERANCE
        )
        begin += new
