"""Attention over a float32 KV cache in torch: the textbook formula over all positions at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor as X

from kernels.host_bytes import joined, split
from kernels.ops import Bytes, CacheShape, HeadNorms, Ints, Rope
from kernels.reference_recurrent import Weight, rms_norm


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys (layers, pages, page_size, heads, key) and values (…, value), float32."""

    keys: X
    values: X
    ring: int = 0

    def write(self, layer: int, pages: Ints, start: int, k: X, v: X) -> None:
        """Store k and v, (n, heads, features), at positions start .. start + n - 1."""
        size = self.keys.shape[2]
        for i in range(len(k)):
            page, slot = self._page(pages, (start + i) // size), (start + i) % size
            self.keys[layer, page, slot] = k[i]
            self.values[layer, page, slot] = v[i]

    def read(self, layer: int, pages: Ints, first: int, length: int) -> tuple[X, X]:
        """Keys and values of positions first .. length - 1, (length - first, heads, features)."""
        size = self.keys.shape[2]
        used = [self._page(pages, number) for number in range(first // size, -(-length // size))]
        here = slice(first % size, first % size + length - first)
        k = self.keys[layer, used].flatten(0, 1)[here]
        v = self.values[layer, used].flatten(0, 1)[here]
        return k, v

    def _page(self, pages: Ints, number: int) -> int:
        return number % self.ring if self.ring else int(pages[number])


class ReferenceAttentionOps:
    """The ops of `kernels.ops.Ops` on a KV cache."""

    def kv_cache(self, shape: CacheShape) -> Cache:
        """Float32 whatever the kind: the oracle does not round."""
        size = (shape.layers, shape.pages, shape.page_size, shape.heads)
        keys, values = torch.zeros(*size, shape.key), torch.zeros(*size, shape.value)
        return Cache(keys, values, shape.ring)

    def copy_page(self, cache: Cache, source: int, target: int) -> None:
        cache.keys[:, target] = cache.keys[:, source]
        cache.values[:, target] = cache.values[:, source]

    def read_page(self, cache: Cache, page: int) -> Bytes:
        return joined([plane[:, page].numpy() for plane in (cache.keys, cache.values)])

    def write_page(self, cache: Cache, page: int, data: Bytes) -> None:
        split([plane[:, page].numpy() for plane in (cache.keys, cache.values)], data)

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: HeadNorms[Weight] | None,
        eps: float,
        rope: Rope,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        kv_heads, key = cache.keys.shape[3:]
        queries, keys = q.view(len(q), -1, key), k.clone().view(len(k), kv_heads, key)
        values = v.view(len(v), kv_heads, -1)
        if norms is not None:
            for x, norm in ((queries, norms.q), (keys, norms.k)):
                rows = x.view(len(x), -1, norm.tensor.cols)
                rows.copy_(rms_norm(rows, norm.float(), eps))
            values = rms_norm(values, torch.ones(1), eps) if norms.values else values
        _rotate(queries, rope, rope.offset, start)
        _rotate(keys, rope, rope.offset, start)
        cache.write(layer, pages, start, keys, values)

    def attention(
        self,
        q: X,
        heads: int,
        scale: float,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
        window: int = 0,
        sinks: Weight | None = None,
    ) -> X:
        first = max(0, start - window + 1) if window else 0
        k, v = cache.read(layer, pages, first, start + len(q))
        group = heads // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        sink = None if sinks is None else sinks.float()
        queries = q.view(len(q), heads, -1)
        return _attend(queries, k, v, scale, start - first, window, sink).flatten(1)

    def latent_append(
        self,
        q: X,
        heads: int,
        kv: X,
        norm: Weight,
        eps: float,
        rope: Rope,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        _rotate(q.view(len(q), heads, -1), rope, rope.offset, start)
        latent = kv.shape[1] - 2 * len(rope.frequencies)
        row = kv.clone()
        row[:, :latent] = rms_norm(kv[:, :latent], norm.float(), eps)
        row = row.view(len(kv), 1, -1)
        _rotate(row, rope, latent, start)
        cache.write(layer, pages, start, row, row[..., :0])

    def latent_attention(
        self,
        q: X,
        heads: int,
        scale: float,
        k_b: Weight,
        v_b: Weight,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> X:
        rows, _ = cache.read(layer, pages, 0, start + len(q))
        latent, nope = k_b.tensor.shape[1:]
        queries = q.view(len(q), heads, -1)
        absorbed = torch.einsum("nhd,hld->nhl", queries[..., :nope], k_b.float())
        queries = torch.cat([absorbed, queries[..., nope:]], dim=-1)
        keys = rows.expand(-1, heads, -1)
        attn_out = _attend(queries, keys, keys[..., :latent], scale, start)
        return torch.einsum("nhl,hvl->nhv", attn_out, v_b.float()).flatten(1)


def _rotate(x: X, rope: Rope, offset: int, start: int) -> None:
    """Rotary embedding in place of x (n, heads, features); token i is at position start + i."""
    frequencies = torch.tensor(rope.frequencies, dtype=torch.float64)
    positions = torch.arange(start, start + len(x), dtype=torch.float64)
    angles = (positions[:, None] * frequencies)[:, None]
    cos = (angles.cos() * rope.magnitude).float()
    sin = (angles.sin() * rope.magnitude).float()
    part = x[..., offset : offset + 2 * len(frequencies)]
    half = len(frequencies)
    first = part[..., 0::2] if rope.interleaved else part[..., :half]
    second = part[..., 1::2] if rope.interleaved else part[..., half:]
    rotated = first * cos - second * sin, first * sin + second * cos
    first.copy_(rotated[0])
    second.copy_(rotated[1])


def _attend(
    q: X, k: X, v: X, scale: float, start: int, window: int = 0, sinks: X | None = None
) -> X:
    """Causal softmax attention: q (n, heads, d), k and v (length, heads, …) -> (n, heads, …)."""
    scores = torch.einsum("nhd,lhd->hnl", q, k) * scale
    behind = torch.arange(start, start + len(q))[:, None] - torch.arange(len(k))[None]
    unseen = (behind < 0) | (behind >= (window or len(k)))
    scores = scores.masked_fill(unseen, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(-1, 1, 1).expand(-1, len(q), 1)], dim=-1)
    weights = scores.softmax(-1)[..., : len(k)]
    return torch.einsum("hnl,lhd->nhd", weights, v)
