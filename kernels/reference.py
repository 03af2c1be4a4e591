"""The op set in float32 torch: the oracle that every faster implementation is compared with.

Written to be read, not to be fast: weights are dequantised when they are used, the KV cache is
float32, and attention is the textbook formula over all positions at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor as X
from torch.nn import functional

from kernels import ggml
from kernels.ops import (
    Activation,
    Biases,
    CacheShape,
    Floats,
    Forward,
    Gating,
    Ints,
    Rope,
    Routing,
    Tensor,
)
from kernels.parameters import ALPHA, LIMIT
from kernels.reference_recurrent import ReferenceRecurrentOps, Weight, rms_norm


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


class ReferenceOps(ReferenceRecurrentOps):
    """`kernels.ops.Ops` in float32 torch. `keep` trades memory for dequantising once."""

    name = "reference"

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep

    def matrix(self, tensor: Tensor) -> Weight:
        return Weight(tensor, {} if self._keep else None)

    def table(self, tensor: Tensor) -> Weight:
        return Weight(tensor, None)

    def repacks(self, tensor: Tensor) -> bool:
        return False

    def vector(self, tensor: Tensor) -> Weight:
        return Weight(tensor, {})

    def kv_cache(self, shape: CacheShape) -> Cache:
        """Float32 whatever the kind: the oracle does not round."""
        size = (shape.layers, shape.pages, shape.page_size, shape.heads)
        keys, values = torch.zeros(*size, shape.key), torch.zeros(*size, shape.value)
        return Cache(keys, values, shape.ring)

    def copy_page(self, cache: Cache, source: int, target: int) -> None:
        cache.keys[:, target] = cache.keys[:, source]
        cache.values[:, target] = cache.values[:, source]

    def record(self, forward: Forward[X]) -> Forward[X]:
        return forward

    def embed(self, table: Weight, tokens: Ints) -> X:
        tensor = table.tensor
        row = tensor.type.row_bytes(tensor.cols)
        data = tensor.data.reshape(tensor.rows, row)[tokens].reshape(-1)
        rows = Tensor(tensor.name, tensor.type, (len(tokens), tensor.cols), data)
        return torch.from_numpy(ggml.dequantise(rows).copy())

    def set_hidden(self, rows: Floats) -> X:
        return torch.from_numpy(rows).clone()

    def last_row(self, x: X) -> X:
        return x[-1:]

    def from_numpy(self, x: Floats) -> X:
        return torch.from_numpy(x)

    def to_numpy(self, x: X) -> Floats:
        array: Floats = x.numpy()
        return array

    def norm(self, x: X, norm: Weight, eps: float) -> X:
        return rms_norm(x, norm.float(), eps)

    def norm_linear(
        self,
        x: X,
        norm: Weight | None,
        eps: float,
        weights: Sequence[Weight],
        biases: Sequence[Weight | None] | None = None,
    ) -> list[X]:
        normed = x if norm is None else rms_norm(x, norm.float(), eps)
        outs = [normed @ weight.float().T for weight in weights]
        for out, bias in zip(outs, biases or (), strict=bool(biases)):
            if bias is not None:
                out += bias.float()
        return outs

    def linear_add(self, x: X, weight: Weight, residual: X, bias: Weight | None = None) -> None:
        residual += x @ weight.float().T
        if bias is not None:
            residual += bias.float()

    def add(self, x: X, residual: X) -> None:
        residual += x

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: tuple[Weight, Weight] | None,
        eps: float,
        rope: Rope,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        kv_heads, key = cache.keys.shape[3:]
        queries, keys = q.view(len(q), -1, key), k.view(len(k), kv_heads, key)
        if norms is not None:
            for x, norm in zip((queries, keys), norms, strict=True):
                rows = x.view(len(x), -1, norm.tensor.cols)
                rows.copy_(rms_norm(rows, norm.float(), eps))
        _rotate(queries, rope, rope.offset, start)
        _rotate(keys, rope, rope.offset, start)
        cache.write(layer, pages, start, keys, v.view(len(v), kv_heads, -1))

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

    def route(
        self,
        x: X,
        norm: Weight,
        eps: float,
        router: Weight,
        bias: Weight | None,
        routing: Routing,
        logit_bias: Weight | None = None,
    ) -> tuple[X, X, X]:
        normed = rms_norm(x, norm.float(), eps)
        logits = normed @ router.float().T
        if logit_bias is not None:
            logits = logits + logit_bias.float()
        scores = _SCORES[routing.gating](logits)
        biased = scores if bias is None else scores + bias.float()
        if routing.groups > 1:
            grouped = biased.view(len(x), routing.groups, -1)
            best = grouped.topk(2, dim=-1).values.sum(-1).topk(routing.top_groups, dim=-1).indices
            allowed = torch.zeros(len(x), routing.groups, dtype=torch.bool).scatter_(1, best, True)
            biased = grouped.masked_fill(~allowed[..., None], -torch.inf).flatten(1)
        ids = biased.topk(routing.top_k, dim=-1).indices
        weights = scores.gather(1, ids)
        if routing.gating == "softmax of the chosen":
            weights = weights.softmax(-1)
        if routing.normalise:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=routing.floor)
        return normed, ids.to(torch.int32), weights * routing.scale

    def moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: X,
        biases: Biases[Weight] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        for expert in sorted(set(ids.flatten().tolist()) - {-1}):
            token, choice = torch.where(ids == expert)
            added = [0.0] * 3 if biases is None else [bias.float(expert) for bias in biases]
            first = x[token] @ gate.float(expert).T + added[0]
            second = x[token] @ up.float(expert).T + added[1]
            out = _activate(activation, first, second) @ down.float(expert).T + added[2]
            residual.index_add_(0, token, out * weights[token, choice, None])

    def ffn_add(
        self,
        x: X,
        gate: Weight,
        up: Weight,
        down: Weight,
        residual: X,
        scaler: Weight | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        hidden = _activate(activation, x @ gate.float().T, x @ up.float().T)
        out = hidden @ down.float().T
        if scaler is not None:
            out = out * (x @ scaler.float().view(-1, 1)).sigmoid()
        residual += out


_SCORES: dict[Gating, Callable[[X], X]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "softmax of the chosen": lambda logits: logits,
}


def _activate(activation: Activation, gate: X, up: X) -> X:
    if activation == "swiglu":
        return functional.silu(gate) * up
    gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
    return gate * (ALPHA * gate).sigmoid() * (up + 1)


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
