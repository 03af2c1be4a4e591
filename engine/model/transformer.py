"""The forward pass of every architecture we run ourselves, written once over the op set.

Knows how a decoder layer is put together (grouped-query or latent attention, dense or
mixture-of-experts FFN); knows nothing of devices, of files' bytes, or of sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from engine.gguf import GGUFFile
from engine.model.weights import Report, WeightLoader
from engine.spec import ModelSpec, MoeSpec
from kernels.ops import C, CacheShape, Floats, Ints, Ops, Rope, W, X


@dataclass(frozen=True, slots=True)
class Span:
    """Where new tokens go: the sequence's pages, the first position, and how many."""

    pages: Ints
    start: int
    count: int

    @property
    def last(self) -> Span:
        """The last token alone."""
        return Span(self.pages, self.start + self.count - 1, 1)


class GroupedAttention(Generic[X, W, C]):
    """Grouped-query attention (Ainslie et al., 2023) with optional biases and per-head norms."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, layer: int
    ) -> None:
        prefix = f"blk.{layer}."
        self._ops, self._spec, self._rope, self._layer = ops, spec, rope, layer
        self._norm = load.vector(prefix + "attn_norm.weight")
        self._qkv = [load.matrix(f"{prefix}attn_{name}.weight") for name in "qkv"]
        self._biases = [load.optional_vector(f"{prefix}attn_{name}.bias") for name in "qkv"]
        self._head_norms = (
            (
                load.vector(prefix + "attn_q_norm.weight"),
                load.vector(prefix + "attn_k_norm.weight"),
            )
            if spec.qk_norm
            else None
        )
        self._output = load.matrix(prefix + "attn_output.weight")

    def add(self, x: X, cache: C, span: Span, last: bool) -> X:
        """x plus attention; only its last row when `last`, which saves the others' work."""
        ops, eps = self._ops, self._spec.eps
        q, k, v = ops.norm_linear(x, self._norm, eps, self._qkv, self._biases)
        place = (cache, self._layer, span.pages)
        ops.rope_append(q, k, v, self._head_norms, eps, self._rope, *place, span.start)
        if last:
            x, q, span = ops.last_row(x), ops.last_row(q), span.last
        spec = self._spec
        mixed = ops.attention(q, spec.heads, spec.softmax_scale, *place, span.start)
        ops.linear_add(mixed, self._output, x)
        return x


class LatentAttention(Generic[X, W, C]):
    """Multi-head latent attention, absorbed (DeepSeek-AI, 2024): the cache holds latents only."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, layer: int
    ) -> None:
        assert spec.mla is not None
        prefix = f"blk.{layer}."
        self._ops, self._spec, self._rope, self._layer = ops, spec, rope, layer
        self._norm = load.vector(prefix + "attn_norm.weight")
        self._kv_a = load.matrix(prefix + "attn_kv_a_mqa.weight")
        self._kv_norm = load.vector(prefix + "attn_kv_a_norm.weight")
        self._q_norm: W | None = None
        if spec.mla.q_lora:
            self._q_a = load.matrix(prefix + "attn_q_a.weight")
            self._q_norm = load.vector(prefix + "attn_q_a_norm.weight")
            self._q = load.matrix(prefix + "attn_q_b.weight")
        else:
            self._q = load.matrix(prefix + "attn_q.weight")
        self._k_b, self._v_b = load.latent_projections(prefix, spec.heads, spec.mla)
        self._output = load.matrix(prefix + "attn_output.weight")

    def add(self, x: X, cache: C, span: Span, last: bool) -> X:
        """x plus attention; only its last row when `last`."""
        ops, eps, spec = self._ops, self._spec.eps, self._spec
        if self._q_norm is None:
            q, kv = ops.norm_linear(x, self._norm, eps, [self._q, self._kv_a])
        else:
            low, kv = ops.norm_linear(x, self._norm, eps, [self._q_a, self._kv_a])
            (q,) = ops.norm_linear(low, self._q_norm, eps, [self._q])
        place = (cache, self._layer, span.pages)
        ops.latent_append(q, spec.heads, kv, self._kv_norm, eps, self._rope, *place, span.start)
        if last:
            x, q, span = ops.last_row(x), ops.last_row(q), span.last
        mixed = ops.latent_attention(
            q, spec.heads, spec.softmax_scale, self._k_b, self._v_b, *place, span.start
        )
        ops.linear_add(mixed, self._output, x)
        return x


class DenseFfn(Generic[X, W, C]):
    """SwiGLU feed-forward (Shazeer, 2020)."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, layer: int
    ) -> None:
        prefix = f"blk.{layer}.ffn_"
        self._ops, self._eps = ops, spec.eps
        self._norm = load.vector(prefix + "norm.weight")
        self._weights = _gate_up_down(load, prefix, "")

    def add(self, x: X) -> None:
        """x += FFN(norm(x))"""
        normed = self._ops.norm(x, self._norm, self._eps)
        self._ops.ffn_add(normed, *self._weights, x)


class MoeFfn(Generic[X, W, C]):
    """Routed experts, with shared experts beside them when the model has any."""

    def __init__(
        self,
        ops: Ops[X, W, C],
        load: WeightLoader[W],
        spec: ModelSpec,
        moe: MoeSpec,
        layer: int,
    ) -> None:
        prefix = f"blk.{layer}.ffn_"
        self._ops, self._eps = ops, spec.eps
        self._routing = moe.to_routing()
        self._norm = load.vector(prefix + "norm.weight")
        self._router = load.matrix(prefix + "gate_inp.weight")
        self._bias = load.optional_vector(f"blk.{layer}.exp_probs_b.bias")
        self._experts = _gate_up_down(load, prefix, "_exps")
        self._shared = _gate_up_down(load, prefix, "_shexp") if moe.shared_width else None
        self._scaler = load.vector(prefix + "gate_inp_shexp.weight") if moe.shared_gate else None

    def add(self, x: X) -> None:
        """x += experts(norm(x)) + shared(norm(x))"""
        ops = self._ops
        normed, ids, weights = ops.route(
            x, self._norm, self._eps, self._router, self._bias, self._routing
        )
        ops.moe_add(normed, ids, weights, *self._experts, x)
        if self._shared is not None:
            ops.ffn_add(normed, *self._shared, x, self._scaler)


def _gate_up_down(load: WeightLoader[W], prefix: str, suffix: str) -> tuple[W, W, W]:
    gate, up, down = (load.matrix(f"{prefix}{name}{suffix}.weight") for name in _FFN)
    return gate, up, down


_FFN = ("gate", "up", "down")


class Transformer(Generic[X, W, C]):
    """A decoder-only model bound to an op set and a KV cache of `pages` pages."""

    def __init__(
        self,
        file: GGUFFile,
        spec: ModelSpec,
        ops: Ops[X, W, C],
        pages: int,
        page_size: int,
        report: Report = lambda done, total: None,
    ) -> None:
        load = WeightLoader(file, ops, report)
        rope = spec.rope.to_rope(spec.mla.nope if spec.mla else 0)
        attention = GroupedAttention if spec.mla is None else LatentAttention
        self.spec, self.ops = spec, ops
        self._embedding = load.table("token_embd.weight")
        self._layers = [
            (attention(ops, load, spec, rope, layer), _ffn(ops, load, spec, layer))
            for layer in range(spec.layers)
        ]
        self._norm = load.vector("output_norm.weight")
        self._output = load.matrix("token_embd.weight" if spec.tied else "output.weight")
        self.cache = ops.kv_cache(cache_shape(spec, pages, page_size))
        self._forward_one = ops.record(self._forward_last)

    def forward(self, tokens: Ints, pages: Ints, start: int) -> Floats:
        """Append `tokens` at position `start`; logits of the last one, (vocabulary,)."""
        forward = self._forward_one if len(tokens) == 1 else self._forward_last
        logits: Floats = self.ops.to_numpy(forward(tokens, pages, start))[0]
        return logits

    def forward_all(self, tokens: Ints, pages: Ints, start: int) -> Floats:
        """Like `forward`, but logits of every token: (n, vocabulary)."""
        return self.ops.to_numpy(self._forward(tokens, pages, start, last=False))

    def _forward_last(self, tokens: Ints, pages: Ints, start: int) -> X:
        return self._forward(tokens, pages, start, last=True)

    def _forward(self, tokens: Ints, pages: Ints, start: int, last: bool) -> X:
        span = Span(pages, start, len(tokens))
        x = self.ops.embed(self._embedding, tokens)
        final = len(self._layers) - 1
        for index, (attention, ffn) in enumerate(self._layers):
            x = attention.add(x, self.cache, span, last=last and index == final)
            ffn.add(x)
        (logits,) = self.ops.norm_linear(x, self._norm, self.spec.eps, [self._output])
        return logits


def _ffn(
    ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, layer: int
) -> DenseFfn[X, W, C] | MoeFfn[X, W, C]:
    if spec.moe is None or layer < spec.moe.leading_dense:
        return DenseFfn(ops, load, spec, layer)
    return MoeFfn(ops, load, spec, spec.moe, layer)


def cache_shape(spec: ModelSpec, pages: int, page_size: int) -> CacheShape:
    """The KV cache that a model needs: latents for MLA, keys and values otherwise."""
    if spec.mla is not None:
        key = spec.mla.kv_lora + spec.mla.rope
        return CacheShape(spec.layers, pages, page_size, heads=1, key=key, value=0)
    return CacheShape(
        spec.layers, pages, page_size, spec.kv_heads, key=spec.head_dim, value=spec.value_dim
    )


def page_table(pages: list[int]) -> Ints:
    """A sequence's pages as the ops want them."""
    return np.array(pages, dtype=np.int32)
