"""Feed-forward networks whose outputs are normed before they are added to the residual (Gemma)."""

from __future__ import annotations

from typing import Generic

from engine.model.experts import gate_up_down, routed_experts
from engine.model.weights import WeightLoader
from engine.spec.spec import ModelSpec, MoeSpec
from kernels.ops import C, Ops
from kernels.recurrent import W, X


class PostNormFfn(Generic[X, W, C]):
    """x = (x + norm(FFN(norm(x)))) * scale, where a layer has a scale (Gemma 3, 2025)."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, layer: int
    ) -> None:
        prefix = f"blk.{layer}."
        self._ops, self._eps, self._activation = ops, spec.eps, spec.activation
        self._norm = load.vector(prefix + "ffn_norm.weight")
        self._weights = gate_up_down(load, prefix + "ffn_", "")
        self._post_norm = load.vector(prefix + "post_ffw_norm.weight")
        self._scale = load.optional_vector(prefix + "layer_output_scale.weight")

    def add(self, x: X) -> None:
        """The layer's second half, in x's place."""
        self._finish(self._dense(self._ops.norm(x, self._norm, self._eps)), x)

    def _dense(self, normed: X) -> X:
        out = self._ops.zeros(normed)
        self._ops.ffn_add(normed, *self._weights, out, None, self._activation)
        return out

    def _finish(self, out: X, x: X) -> None:
        self._ops.norm_add(out, self._post_norm, self._eps, x, self._scale)


class DenseBesideExperts(PostNormFfn[X, W, C]):
    """The same with FFN(norm(x)) = norm(dense(norm(x))) + norm(experts(norm(x))), each norm another (Gemma 4, 2026)."""

    def __init__(
        self,
        ops: Ops[X, W, C],
        load: WeightLoader[W],
        spec: ModelSpec,
        moe: MoeSpec,
        layer: int,
    ) -> None:
        super().__init__(ops, load, spec, layer)
        prefix = f"blk.{layer}."
        self._routing = moe.to_routing()
        self._router_norm = load.vector(prefix + "ffn_gate_inp.scale", spec.hidden**-0.5)
        self._router = load.matrix(prefix + "ffn_gate_inp.weight")
        self._expert_scales = load.optional_vector(prefix + "ffn_down_exps.scale")
        self._experts = routed_experts(load, prefix + "ffn_", moe.width, spec.fused_gate_up)
        self._expert_norm = load.vector(prefix + "pre_ffw_norm_2.weight")
        self._dense_post_norm = load.vector(prefix + "post_ffw_norm_1.weight")
        self._expert_post_norm = load.vector(prefix + "post_ffw_norm_2.weight")

    def add(self, x: X) -> None:
        """The layer's second half, in x's place. Norms come first: a host then computes experts beside the rest."""
        ops, eps = self._ops, self._eps
        _, ids, weights = ops.route(
            x, self._router_norm, eps, self._router, None, self._routing, None, self._expert_scales
        )
        for_experts, for_dense = (
            ops.norm(x, norm, eps) for norm in (self._expert_norm, self._norm)
        )
        routed = ops.zeros(x)
        ops.moe_add(for_experts, ids, weights, *self._experts, routed, None, self._activation)
        out = ops.norm(self._dense(for_dense), self._dense_post_norm, eps)
        ops.norm_add(routed, self._expert_post_norm, eps, out)
        self._finish(out, x)
