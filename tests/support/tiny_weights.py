"""Random weights of tiny models, scaled so that activations are healthy and routing is decisive."""

from __future__ import annotations

import zlib

import numpy as np

from kernels.ops import Floats
from tests.support.tiny_shapes import Shape

ROUTER_GAIN = 2.0
"""A router's logit for a level of 1 in its token's code."""

POOL_ROWS = 96
"""Distinct rows that the experts of a tensor draw from: the slow types quantise each row once."""


class TinyWeights:
    """All tensors of one model; the same name, shape and seed give the same values."""

    def __init__(self, shape: Shape, vocabulary: int, seed: int) -> None:
        self.shape = shape
        self.vocabulary = vocabulary
        self.seed = seed
        self._pools: dict[tuple[int, float], Floats] = {}

    def tensors(self) -> dict[str, Floats]:
        """Every tensor by its GGUF name, shape outermost first."""
        shape = self.shape
        routers = [self._router(i) for i in range(shape.layers)]
        out = {"token_embd.weight": self._embedding(routers)}
        if not shape.tied:
            out["output.weight"] = self._matrix("output", self.vocabulary, shape.hidden, 2.0)
        out["output_norm.weight"] = self._norm("output_norm", shape.hidden)
        if shape.gemma is not None:
            out["output_norm.weight"] *= 2
            if shape.gemma.fourth:
                out["rope_freqs.weight"] = shape.gemma.rope_factors(shape.head)
        if shape.rope_factors:
            out["rope_freqs.weight"] = np.linspace(1, 8, shape.head // 2, dtype=np.float32)
        for layer in range(shape.layers):
            if shape.is_recurrent(layer):
                parts = self._delta(layer)
            else:
                parts = self._latent(layer) if shape.latent else self._grouped(layer)
            parts |= self._ffn(layer, routers[layer])
            out |= {f"blk.{layer}.{name}": values for name, values in parts.items()}
        for layer in range(shape.layers, shape.layers + shape.extra_layers):
            attention = self._latent(layer) if shape.latent else self._grouped(layer)
            parts = attention | self._ffn(layer, routers[0]) | self._next_token(layer)
            out |= {f"blk.{layer}.{name}": values for name, values in parts.items()}
        return out

    def _next_token(self, layer: int) -> dict[str, Floats]:
        hidden = self.shape.hidden
        norms = ("nextn.enorm", "nextn.hnorm", *self.shape.extra_norms)
        return {
            "nextn.eh_proj.weight": self._matrix(f"{layer}.eh_proj", hidden, 2 * hidden),
            **{f"{name}.weight": self._norm(f"{layer}.{name}", hidden) for name in norms},
        }

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _matrix(self, name: str, rows: int, cols: int, gain: float = 1.0) -> Floats:
        values = self._rng(name).standard_normal((rows, cols), dtype=np.float32)
        return values * np.float32(gain / cols**0.5)

    def _vector(self, name: str, size: int, scale: float) -> Floats:
        return self._rng(name).standard_normal(size, dtype=np.float32) * np.float32(scale)

    def _norm(self, name: str, size: int) -> Floats:
        return self._rng(name).uniform(0.6, 1.4, size).astype(np.float32)

    def _into_residual(self, name: str, cols: int, gain: float) -> Floats:
        values = self._matrix(name, self.shape.hidden, cols, gain)
        values[self._code] = 0
        return values

    def _experts(self, name: str, rows: int, cols: int, gain: float) -> Floats:
        if (cols, gain) not in self._pools:
            self._pools[cols, gain] = self._matrix(f"pool {cols} {gain}", POOL_ROWS, cols, gain)
        pick = self._rng(name).integers(POOL_ROWS, size=(self.shape.experts, rows))
        return self._pools[cols, gain][pick]

    @property
    def _code(self) -> slice:
        """The features that hold a token's routing code."""
        return slice(self.shape.hidden - self.shape.experts, self.shape.hidden)

    def _router(self, layer: int) -> Floats:
        """(experts, hidden): each expert reads one feature of the code, and a little of the rest."""
        experts = self.shape.experts
        name = f"{layer}.router"
        values = self._matrix(name, experts, self.shape.hidden, 0.15)
        code = np.eye(experts, dtype=np.float32)[self._rng(f"{name} order").permutation(experts)]
        values[:, self._code] = code * ROUTER_GAIN
        return values

    def _embedding(self, routers: list[Floats]) -> Floats:
        values = self._rng("embedding").standard_normal(
            (self.vocabulary, self.shape.hidden), dtype=np.float32
        )
        # Gemma multiplies rows by the root of their length.
        factor = np.float32(self.shape.hidden**-0.5 if self.shape.gemma else 1.0)
        if self.shape.tied and not self.shape.gemma:  # the same matrix makes the logits
            values *= np.float32(2.0 / self.shape.hidden**0.5)
        if not self.shape.experts:
            return values * factor
        levels = np.linspace(-1.5, 1.5, self.shape.experts, dtype=np.float32)
        codes = self._rng("codes").permuted(
            np.tile(levels, (self.vocabulary, 16, 1)), axis=-1
        )  # (token, candidate, feature)
        margins = [self._margin(codes @ r[:, self._code].T, i) for i, r in enumerate(routers)]
        best = np.min(margins, axis=0).argmax(axis=-1)
        values[:, self._code] = codes[np.arange(self.vocabulary), best]
        return values * factor

    def _margin(self, logits: Floats, layer: int) -> Floats:
        """How far the last chosen group and expert are from the first one left out."""
        shape = self.shape
        scores = logits + self._logit_bias(layer) if shape.biases else logits
        if shape.sigmoid:
            scores = 1 / (1 + np.exp(-logits)) + self._router_bias(layer)
        margin = np.full(scores.shape[:-1], np.inf)
        if shape.groups > 1:
            grouped = scores.reshape(*scores.shape[:-1], shape.groups, -1)
            totals = np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1)
            margin = _gap(totals, shape.top_groups)
            worst_kept = np.sort(totals, axis=-1)[..., -shape.top_groups, None]
            kept = np.where((totals >= worst_kept)[..., None], grouped, -np.inf)
            scores = kept.reshape(scores.shape)
        return np.minimum(margin, _gap(scores, shape.top_k)).astype(np.float32)

    def _logit_bias(self, layer: int) -> Floats:
        return self._vector(f"{layer}.gate_inp.bias", self.shape.experts, 0.2)

    def _residual_bias(self, name: str, *count: int) -> Floats:
        rows = self._rng(name).standard_normal((*count, self.shape.hidden), dtype=np.float32)
        rows[..., self._code] = 0
        return rows * np.float32(0.2)

    def _router_bias(self, layer: int) -> Floats:
        return self._vector(f"{layer}.exp_probs_b", self.shape.experts, 0.1)

    def _grouped(self, layer: int) -> dict[str, Floats]:
        shape, gemma = self.shape, self.shape.gemma
        head, kv_heads = shape.head, shape.kv_heads
        if gemma is not None and not gemma.sees_all(layer):
            head, kv_heads = gemma.head, gemma.kv_heads
        rows = {"q": shape.heads, "k": kv_heads, "v": kv_heads}
        gains = {"q": 1.6, "k": 1.6, "v": 1.0}
        out = {"attn_norm.weight": self._norm(f"{layer}.attn_norm", shape.hidden)}
        for part, heads in rows.items():
            gated = part == "q" and shape.delta is not None
            name, size = f"{layer}.attn_{part}", heads * head * (2 if gated else 1)
            out[f"attn_{part}.weight"] = self._matrix(name, size, shape.hidden, gains[part])
            if shape.qkv_bias:
                out[f"attn_{part}.bias"] = self._vector(f"{name}.bias", size, 0.3)
        if shape.qk_norm:
            for part in ("q", "k"):
                size = head * (rows[part] if shape.norm_all else 1)
                out[f"attn_{part}_norm.weight"] = (
                    self._norm(f"{layer}.attn_{part}_norm", size) * 1.4
                )
        if gemma is not None:
            out["post_attention_norm.weight"] = self._norm(f"{layer}.post_attention", shape.hidden)
            if gemma.fourth:
                out["attn_q_norm.weight"] *= head**-0.5
            if gemma.keys_are_values and gemma.sees_all(layer):
                del out["attn_v.weight"]
        if "qkv" in shape.fused:
            parts = [out.pop(f"attn_{part}.weight") for part in rows]
            out["attn_qkv.weight"] = np.concatenate(parts)
        size = shape.heads * head
        out["attn_output.weight"] = self._into_residual(f"{layer}.attn_output", size, 1.0)
        if shape.biases:
            out["attn_output.bias"] = self._residual_bias(f"{layer}.attn_output.bias")
            out["attn_sinks.weight"] = self._vector(f"{layer}.attn_sinks", shape.heads, 1.0)
        return {name: values.astype(np.float32) for name, values in out.items()}

    def _delta(self, layer: int) -> dict[str, Floats]:
        shape, net = self.shape, self.shape.delta
        assert net is not None
        hidden, heads = shape.hidden, net.value_heads
        rng = self._rng(f"{layer}.ssm")
        qkv = self._matrix(f"{layer}.qkv", net.conv_features, hidden, 1.4)
        z = self._matrix(f"{layer}.z", net.values, hidden, 1.2)
        alpha, beta = (self._matrix(f"{layer}.{name}", heads, hidden) for name in ("alpha", "beta"))
        out = {
            "attn_norm.weight": self._norm(f"{layer}.attn_norm", hidden),
            "ssm_conv1d.weight": self._matrix(f"{layer}.conv", net.conv_features, net.kernel, 1.5),
            "ssm_a": -rng.uniform(0.1, 2.0, heads),
            "ssm_dt.bias": rng.uniform(-4.0, 0.0, heads),
            "ssm_norm.weight": self._norm(f"{layer}.ssm_norm", net.value),
            "ssm_out.weight": self._into_residual(f"{layer}.ssm_out", net.values, 1.0),
        }
        if shape.delta_layout == "split":
            out |= {"ssm_alpha.weight": alpha, "ssm_beta.weight": beta}
        else:
            by_head = [m.reshape(net.key_heads, -1, hidden) for m in (beta, alpha)]
            out["ssm_ba.weight"] = np.concatenate(by_head, axis=1).reshape(-1, hidden)
        if shape.delta_layout == "joined":
            keys = net.key_heads * net.key
            parts = [*np.split(qkv, [keys, 2 * keys]), z]
            by_head = [part.reshape(net.key_heads, -1, hidden) for part in parts]
            out["ssm_in.weight"] = np.concatenate(by_head, axis=1).reshape(-1, hidden)
        else:
            out |= {"attn_qkv.weight": qkv, "attn_gate.weight": z}
        return {name: np.ascontiguousarray(values, np.float32) for name, values in out.items()}

    def _latent(self, layer: int) -> dict[str, Floats]:
        shape = self.shape
        hidden, key = shape.hidden, shape.nope + shape.rope
        out = {
            "attn_norm.weight": self._norm(f"{layer}.attn_norm", hidden),
            "attn_kv_a_mqa.weight": self._matrix(
                f"{layer}.kv_a", shape.latent + shape.rope, hidden, 1.5
            ),
            "attn_kv_a_norm.weight": self._norm(f"{layer}.kv_a_norm", shape.latent),
        }
        if shape.q_latent:
            out["attn_q_a.weight"] = self._matrix(f"{layer}.q_a", shape.q_latent, hidden)
            out["attn_q_a_norm.weight"] = self._norm(f"{layer}.q_a_norm", shape.q_latent)
            out["attn_q_b.weight"] = self._matrix(
                f"{layer}.q_b", shape.heads * key, shape.q_latent, 1.5
            )
        else:
            out["attn_q.weight"] = self._matrix(f"{layer}.q", shape.heads * key, hidden, 1.5)
        kv_b = self._matrix(
            f"{layer}.kv_b", shape.heads * (shape.nope + shape.value), shape.latent, 1.3
        ).reshape(shape.heads, shape.nope + shape.value, shape.latent)
        if shape.split:
            out["attn_k_b.weight"] = kv_b[:, : shape.nope].transpose(0, 2, 1).copy()
            out["attn_v_b.weight"] = kv_b[:, shape.nope :].copy()
        else:
            out["attn_kv_b.weight"] = kv_b.reshape(-1, shape.latent)
        out["attn_output.weight"] = self._into_residual(
            f"{layer}.attn_output", shape.heads * shape.value, 1.0
        )
        return out

    def _ffn(self, layer: int, router: Floats) -> dict[str, Floats]:
        shape = self.shape
        norm = self._norm(f"{layer}.ffn_norm", shape.hidden)
        norm[self._code] = 1
        out = {f"{shape.ffn_norm}.weight": norm}
        if shape.gemma is not None:
            out["post_ffw_norm.weight"] = self._norm(f"{layer}.post_ffw_norm", shape.hidden)
            if shape.gemma.fourth:
                out["layer_output_scale.weight"] = np.array([0.9], np.float32)
        if not shape.experts or layer < shape.dense_layers:
            return out | self._gated(layer, "", shape.ff)
        out["ffn_gate_inp.weight"] = router
        if shape.gemma is not None:
            out |= self._beside(layer, router)
        if shape.sigmoid:
            out["exp_probs_b.bias"] = self._router_bias(layer)
        for part in ("gate", "up"):
            out[f"ffn_{part}_exps.weight"] = self._experts(
                f"{layer}.{part}_exps", shape.expert_ff, shape.hidden, 3.0 if shape.biases else 1.4
            )
        gain = 1.5 / shape.metadata.get("expert_weights_scale", 3.0 if shape.biases else 1.0)
        down = self._experts(f"{layer}.down_exps", shape.hidden, shape.expert_ff, gain)
        down[:, self._code] = 0
        out["ffn_down_exps.weight"] = down
        if shape.biases:
            out |= self._expert_biases(layer)
        if "gate_up" in shape.fused:
            parts = [out.pop(f"ffn_{part}_exps.weight") for part in ("gate", "up")]
            out["ffn_gate_up_exps.weight"] = np.concatenate(parts, axis=1)
        if shape.shared_ff:
            out |= self._gated(layer, "_shexp", shape.shared_ff)
            if shape.shared_gate:
                out["ffn_gate_inp_shexp.weight"] = self._vector(
                    f"{layer}.shared_gate", shape.hidden, shape.hidden**-0.5
                )
        return out

    def _beside(self, layer: int, router: Floats) -> dict[str, Floats]:
        """Gemma 4's dense network, and the norms and scales of both."""
        hidden = self.shape.hidden
        names = "pre_ffw_norm_2.weight", "post_ffw_norm_1.weight", "post_ffw_norm_2.weight"
        out = {name: self._norm(f"{layer}.{name}", hidden) for name in names}
        scale = self._norm(f"{layer}.router_scale", hidden)
        scale[self._code] = 1
        return {
            **out,
            **self._gated(layer, "", self.shape.ff),
            "ffn_gate_inp.weight": router * np.float32(hidden**0.5),
            "ffn_gate_inp.scale": scale,
            "ffn_down_exps.scale": self._norm(f"{layer}.expert_scales", self.shape.experts),
        }

    def _expert_biases(self, layer: int) -> dict[str, Floats]:
        shape, rng = self.shape, self._rng(f"{layer}.expert biases")
        gate, up = rng.standard_normal((2, shape.experts, shape.expert_ff), np.float32)
        return {
            "ffn_gate_inp.bias": self._logit_bias(layer),
            "ffn_gate_exps.bias": gate,
            "ffn_up_exps.bias": up,
            "ffn_down_exps.bias": self._residual_bias(f"{layer}.down_exps.bias", shape.experts),
        }

    def _gated(self, layer: int, suffix: str, width: int) -> dict[str, Floats]:
        name, hidden = f"{layer}.ffn{suffix}", self.shape.hidden
        return {
            f"ffn_gate{suffix}.weight": self._matrix(f"{name}.gate", width, hidden, 1.2),
            f"ffn_up{suffix}.weight": self._matrix(f"{name}.up", width, hidden, 1.2),
            f"ffn_down{suffix}.weight": self._into_residual(f"{name}.down", width, 0.8),
        }


def _gap(scores: Floats, kept: int) -> Floats:
    """The smallest of the `kept` largest scores less the largest of the rest, over the last axis."""
    ordered = np.sort(scores, axis=-1)
    return np.asarray(ordered[..., -kept] - ordered[..., -kept - 1], dtype=np.float32)
