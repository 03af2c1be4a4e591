"""Decoder layers over the op set: attention (grouped-query, latent) or a delta net, then a dense or routed FFN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from engine.model.experts import expert_biases, gate_up_down, routed_experts
from engine.model.post_norm import DenseBesideExperts, PostNormFfn
from engine.model.projections import attention_projections, delta_projections
from engine.model.weights import WeightLoader
from engine.spec.attention import LayerKind
from engine.spec.spec import AttentionSpec, ModelSpec, MoeSpec
from kernels.ops import C, HeadNorms, Ints, Ops, Rope
from kernels.recurrent import DeltaNetWeights, State, W, X


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
    """A layer's number in the model, its kind, and its place among the layers of that kind in its stage."""

    number: int
    kind: LayerKind
    place: int


Memory = Mapping[LayerKind, Any]
"""What a stage remembers of a sequence: KV caches, a recurrent state; of the kinds that its layers have."""


class GroupedAttention(Generic[X, W, C]):
    """Grouped-query attention (Ainslie et al., 2023) with optional biases, per-head norms and output gate."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, at: LayerAt
    ) -> None:
        prefix = f"blk.{at.number}."
        self._ops, self._eps, self._rope, self._layer = ops, spec.eps, rope, at.place
        self._of = spec.attention(at.kind)
        self._norm = load.vector(prefix + "attn_norm.weight")
        self._projections, self._biases = attention_projections(load, spec, self._of, prefix)
        self._head_norms = _head_norms(load, spec, self._of, prefix) if spec.qk_norm else None
        self._sinks = load.optional_vector(prefix + "attn_sinks.weight")
        self._output = load.matrix(prefix + "attn_output.weight")
        self._output_bias = load.optional_vector(prefix + "attn_output.bias")
        self._post_norm = (
            load.vector(prefix + "post_attention_norm.weight") if spec.post_norm else None
        )

    def add(self, x: X, cache: C, span: Span, last: bool) -> X:
        """x plus attention; only its last row when `last`, which saves the others' work."""
        ops, eps, of = self._ops, self._eps, self._of
        q, k, *others = ops.norm_linear(x, self._norm, eps, self._projections, self._biases)
        v, *gate = [k, *others] if of.keys_are_values else others
        place = (cache, self._layer, span.pages)
        ops.rope_append(q, k, v, self._head_norms, eps, self._rope, *place, span.start)
        if last:
            x, q, span = ops.last_row(x), ops.last_row(q), span.last
            gate = [ops.last_row(one) for one in gate]
        seen = of.window, self._sinks
        attn_out = ops.attention(q, of.heads, of.softmax_scale, *place, span.start, *seen)
        for one in gate:
            ops.sigmoid_gate(attn_out, one)
        if self._post_norm is None:
            ops.linear_add(attn_out, self._output, x, self._output_bias)
        else:
            (update,) = ops.norm_linear(attn_out, None, eps, [self._output])
            ops.norm_add(update, self._post_norm, eps, x)
        return x


def _head_norms(
    load: WeightLoader[W], spec: ModelSpec, of: AttentionSpec, prefix: str
) -> HeadNorms[W]:
    q, k = (load.vector(f"{prefix}attn_{name}_norm.weight") for name in "qk")
    return HeadNorms(q, k, spec.value_norm)


class DeltaNetLayer(Generic[X, W, C]):
    """A gated delta net in attention's place (Qwen3-Next, 2025): a recurrent state, no KV cache."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, at: LayerAt
    ) -> None:
        assert spec.delta is not None
        prefix = f"blk.{at.number}."
        self._ops, self._eps, self._net, self._layer = ops, spec.eps, spec.delta, at.place
        self._norm = load.vector(prefix + "attn_norm.weight")
        self._projections = delta_projections(load, spec, prefix)
        self._weights = DeltaNetWeights(
            conv=load.flat_vector(prefix + "ssm_conv1d.weight"),
            a=load.vector(prefix + "ssm_a"),
            dt=load.vector(prefix + "ssm_dt.bias"),
            norm=load.vector(prefix + "ssm_norm.weight"),
        )
        self._output = load.matrix(prefix + "ssm_out.weight")

    def add(self, x: X, state: State, span: Span, last: bool) -> X:
        """x plus the net's output; only its last row when `last`."""
        ops = self._ops
        qkv, z, alpha, beta = ops.norm_linear(x, self._norm, self._eps, self._projections)
        out = ops.delta_net(
            qkv, z, alpha, beta, self._weights, self._eps, self._net, state, self._layer
        )
        if last:
            x, out = ops.last_row(x), ops.last_row(out)
        ops.linear_add(out, self._output, x)
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
        self._norm = load.vector(f"blk.{layer}.{spec.ffn_norm}.weight")
        self._weights = gate_up_down(load, prefix, "")

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
        self._norm = load.vector(f"blk.{layer}.{spec.ffn_norm}.weight")
        self._router = load.matrix(prefix + "gate_inp.weight")
        self._bias = load.optional_vector(f"blk.{layer}.exp_probs_b.bias")
        self._logit_bias = load.optional_vector(prefix + "gate_inp.bias")
        self._experts = routed_experts(load, prefix, moe.width, spec.fused_gate_up)
        self._biases = expert_biases(load, prefix) if moe.biases else None
        self._activation = spec.activation
        self._shared = gate_up_down(load, prefix, "_shexp") if moe.shared_width else None
        self._scaler = load.vector(prefix + "gate_inp_shexp.weight") if moe.shared_gate else None

    def add(self, x: X) -> None:
        """x += experts(norm(x)) + shared(norm(x))"""
        ops = self._ops
        router = self._router, self._bias, self._routing, self._logit_bias
        normed, ids, weights = ops.route(x, self._norm, self._eps, *router)
        ops.moe_add(normed, ids, weights, *self._experts, x, self._biases, self._activation)
        if self._shared is not None:
            ops.ffn_add(normed, *self._shared, x, self._scaler)


X_contra = TypeVar("X_contra", contravariant=True)


class FeedForward(Protocol[X_contra]):
    """The second half of a layer."""

    def add(self, x: X_contra) -> None:
        """x becomes the layer's output."""
        ...


class Layer(Generic[X, W, C]):
    """One decoder layer."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, rope: Rope, at: LayerAt
    ) -> None:
        self._attention: (
            GroupedAttention[X, W, C] | LatentAttention[X, W, C] | DeltaNetLayer[X, W, C]
        )
        self._kind = at.kind
        if at.kind == "recurrent":
            self._attention = DeltaNetLayer(ops, load, spec, at)
        else:
            kind = GroupedAttention if spec.mla is None else LatentAttention
            self._attention = kind(ops, load, spec, rope, at)
        dense, routed = (PostNormFfn, DenseBesideExperts) if spec.post_norm else (DenseFfn, MoeFfn)
        self._ffn: FeedForward[X]
        if spec.moe is None or at.number < spec.moe.leading_dense:
            self._ffn = dense(ops, load, spec, at.number)
        else:
            self._ffn = routed(ops, load, spec, spec.moe, at.number)

    def run(self, x: X, memory: Memory, span: Span, last: bool) -> X:
        """The layer's output, maybe in x's place; only of its last row when `last`."""
        x = self._attention.add(x, memory[self._kind], span, last)
        self._ffn.add(x)
        return x
