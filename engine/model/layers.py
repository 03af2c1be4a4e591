"""Decoder layers over the op set: grouped-query or latent attention, dense or mixture-of-experts FFN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple

from engine.model.weights import WeightLoader
from engine.spec.spec import ModelSpec, MoeSpec
from kernels.ops import C, Ints, Ops, Rope, W, X


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


class LayerAt(NamedTuple):
    """A layer's number in the model, and its place in the cache of its stage."""

    number: int
    place: int


class GroupedAttention(Generic[X, W, C]):
    """Grouped-query attention (Ainslie et al., 2023) with optional biases and per-head norms."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, at: LayerAt
    ) -> None:
        prefix = f"blk.{at.number}."
        self._ops, self._spec, self._rope, self._layer = ops, spec, rope, at.place
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
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, at: LayerAt
    ) -> None:
        assert spec.mla is not None
        prefix = f"blk.{at.number}."
        self._ops, self._spec, self._rope, self._layer = ops, spec, rope, at.place
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


class Layer(Generic[X, W, C]):
    """One decoder layer."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, at: LayerAt
    ) -> None:
        attention = GroupedAttention if spec.mla is None else LatentAttention
        self._attention = attention(ops, load, spec, rope, at)
        self._ffn: DenseFfn[X, W, C] | MoeFfn[X, W, C]
        if spec.moe is None or at.number < spec.moe.leading_dense:
            self._ffn = DenseFfn(ops, load, spec, at.number)
        else:
            self._ffn = MoeFfn(ops, load, spec, spec.moe, at.number)

    def run(self, x: X, cache: C, span: Span, last: bool) -> X:
        """The layer's output, maybe in x's place; only of its last row when `last`."""
        x = self._attention.add(x, cache, span, last)
        self._ffn.add(x)
        return x
