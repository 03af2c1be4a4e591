"""The tensors that the native runtime reads: one table of names and shapes for all architectures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.spec.spec import AttentionSpec, ModelSpec

Row = tuple[str, tuple[str, ...]]
"""A tensor's name within its layer, and its shape, outermost first, in names of sizes."""

_MODEL: tuple[Row, ...] = (
    ("token_embd.weight", ("vocab", "hidden")),
    ("output_norm.weight", ("hidden",)),
)
_OUTPUT: tuple[Row, ...] = (("output.weight", ("vocab", "hidden")),)
_FACTORS: tuple[Row, ...] = (("rope_freqs.weight", ("pairs",)),)
_NORM: tuple[Row, ...] = (("attn_norm.weight", ("hidden",)),)
_QKV: tuple[Row, ...] = (
    ("attn_q.weight", ("q", "hidden")),
    ("attn_k.weight", ("k", "hidden")),
    ("attn_v.weight", ("v", "hidden")),
)
_FUSED_QKV: tuple[Row, ...] = (("attn_qkv.weight", ("qkv", "hidden")),)
_OUT: tuple[Row, ...] = (("attn_output.weight", ("hidden", "o")),)
_FUSED_QKV_BIAS: tuple[Row, ...] = (("attn_qkv.bias", ("qkv",)),)
_DELTA: tuple[Row, ...] = (
    ("ssm_conv1d.weight", ("conv", "kernel")),
    ("ssm_dt.bias", ("value_heads",)),
    ("ssm_a", ("value_heads",)),
    ("ssm_norm.weight", ("delta_value",)),
    ("ssm_out.weight", ("hidden", "values")),
)
_DELTA_QKVZ: tuple[Row, ...] = (
    ("attn_qkv.weight", ("conv", "hidden")),
    ("attn_gate.weight", ("values", "hidden")),
)
_DELTA_JOINED: tuple[Row, ...] = (("ssm_in.weight", ("qkvz", "hidden")),)
_DELTA_AB: tuple[Row, ...] = (
    ("ssm_alpha.weight", ("value_heads", "hidden")),
    ("ssm_beta.weight", ("value_heads", "hidden")),
)
_DELTA_BA: tuple[Row, ...] = (("ssm_ba.weight", ("two_heads", "hidden")),)
_QKV_BIAS: tuple[Row, ...] = (
    ("attn_q.bias", ("q",)),
    ("attn_k.bias", ("k",)),
    ("attn_v.bias", ("v",)),
)
_KEYS_AS_VALUES: tuple[Row, ...] = _QKV[:2]
_POST_NORM: tuple[Row, ...] = (
    ("post_attention_norm.weight", ("hidden",)),
    ("post_ffw_norm.weight", ("hidden",)),
)
_OUTPUT_SCALE: tuple[Row, ...] = (("layer_output_scale.weight", ("one",)),)
_BESIDE: tuple[Row, ...] = (
    ("ffn_gate_inp.scale", ("hidden",)),
    ("pre_ffw_norm_2.weight", ("hidden",)),
    ("post_ffw_norm_1.weight", ("hidden",)),
    ("post_ffw_norm_2.weight", ("hidden",)),
)
_EXPERT_SCALES: tuple[Row, ...] = (("ffn_down_exps.scale", ("experts",)),)
_QK_NORM: tuple[Row, ...] = (
    ("attn_q_norm.weight", ("head_dim",)),
    ("attn_k_norm.weight", ("head_dim",)),
)
_QK_NORM_ALL: tuple[Row, ...] = (
    ("attn_q_norm.weight", ("q",)),
    ("attn_k_norm.weight", ("k",)),
)
_LATENT: tuple[Row, ...] = (
    ("attn_kv_a_mqa.weight", ("kv_row", "hidden")),
    ("attn_kv_a_norm.weight", ("kv_lora",)),
    ("attn_output.weight", ("hidden", "o")),
)
_LATENT_Q: tuple[Row, ...] = (("attn_q.weight", ("q", "hidden")),)
_LATENT_Q_LORA: tuple[Row, ...] = (
    ("attn_q_a.weight", ("q_lora", "hidden")),
    ("attn_q_a_norm.weight", ("q_lora",)),
    ("attn_q_b.weight", ("q", "q_lora")),
)
_LATENT_SPLIT: tuple[Row, ...] = (
    ("attn_k_b.weight", ("heads", "kv_lora", "nope")),
    ("attn_v_b.weight", ("heads", "value_dim", "kv_lora")),
)
_LATENT_JOINED: tuple[Row, ...] = (("attn_kv_b.weight", ("kv_b", "kv_lora")),)
_DENSE: tuple[Row, ...] = (
    ("ffn_gate.weight", ("ffn", "hidden")),
    ("ffn_up.weight", ("ffn", "hidden")),
    ("ffn_down.weight", ("hidden", "ffn")),
)
_ROUTED: tuple[Row, ...] = (
    ("ffn_gate_inp.weight", ("experts", "hidden")),
    ("ffn_down_exps.weight", ("experts", "hidden", "width")),
)
_GATE_UP: tuple[Row, ...] = (
    ("ffn_gate_exps.weight", ("experts", "width", "hidden")),
    ("ffn_up_exps.weight", ("experts", "width", "hidden")),
)
_FUSED_GATE_UP: tuple[Row, ...] = (
    ("ffn_gate_up_exps.weight", ("experts", "two_widths", "hidden")),
)
_BIAS: tuple[Row, ...] = (("exp_probs_b.bias", ("experts",)),)
_SHARED: tuple[Row, ...] = (
    ("ffn_gate_shexp.weight", ("shared", "hidden")),
    ("ffn_up_shexp.weight", ("shared", "hidden")),
    ("ffn_down_shexp.weight", ("hidden", "shared")),
)
_ROUTED_BIASES: tuple[Row, ...] = (
    ("ffn_gate_inp.bias", ("experts",)),
    ("ffn_gate_exps.bias", ("experts", "width")),
    ("ffn_up_exps.bias", ("experts", "width")),
    ("ffn_down_exps.bias", ("experts", "hidden")),
)
_SINKS: tuple[Row, ...] = (("attn_sinks.weight", ("heads",)),)
_OUT_BIAS: tuple[Row, ...] = (("attn_output.bias", ("hidden",)),)
_SHARED_GATE: tuple[Row, ...] = (("ffn_gate_inp_shexp.weight", ("hidden",)),)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One tensor that the native runtime reads."""

    name: str
    shape: tuple[int, ...]


def wanted_tensors(spec: ModelSpec) -> Iterator[Wanted]:
    """Every tensor that the native runtime reads for this spec, in order of use."""
    sizes = _sizes(spec, spec.attention("full"))

    def rows(prefix: str, *tables: tuple[Row, ...]) -> Iterator[Wanted]:
        for table in tables:
            for name, dims in table:
                yield Wanted(prefix + name, tuple(sizes[dim] for dim in dims))

    yield from rows("", _MODEL)
    if not spec.tied:
        yield from rows("", _OUTPUT)
    if spec.rope.has_factors:
        yield from rows("", _FACTORS)
    ffn_norm = ((f"{spec.ffn_norm}.weight", ("hidden",)),)
    for layer in range(spec.layers):
        of = spec.attention(spec.kind(layer))
        sizes = _sizes(spec, of)
        attention = _delta_rows(spec) if spec.is_recurrent(layer) else _attention_rows(spec, of)
        network = _expert_rows(spec) if spec.is_moe_layer(layer) else [_DENSE]
        behind = [_POST_NORM] * spec.post_norm + [_OUTPUT_SCALE] * spec.output_scales
        yield from rows(f"blk.{layer}.", _NORM, *attention, ffn_norm, *network, *behind)


def pieces(spec: ModelSpec, layer: int, name: str) -> tuple[int, ...]:
    """Rows of the matrices that a layer's tensor is cut into when it is loaded; empty: it stays whole."""
    of = spec.attention(spec.kind(layer))
    query = of.heads * of.head_dim
    keys, values = of.kv_heads * of.head_dim, of.kv_heads * of.value_dim
    gate = (query,) if spec.attention_gate else ()
    net = spec.delta
    cut: dict[str, tuple[int, ...]] = {}
    if spec.moe is not None:
        cut["ffn_gate_up_exps.weight"] = (spec.moe.width, spec.moe.width)
    if net is not None and spec.is_recurrent(layer):
        cut["ssm_ba.weight"] = (net.value_heads, net.value_heads)
        cut["ssm_in.weight"] = (net.conv_features, net.values)
    else:
        cut["attn_qkv.weight"] = (query, keys, values, *gate)
        cut["attn_q.weight"] = (query, *gate) if gate else ()
    return cut.get(name, ())


def _attention_rows(spec: ModelSpec, of: AttentionSpec) -> list[tuple[Row, ...]]:
    if spec.mla is None:
        bias = [_FUSED_QKV_BIAS if spec.fused_qkv_bias else _QKV_BIAS] if spec.qkv_bias else []
        norms = {"": [], "head": [_QK_NORM], "all": [_QK_NORM_ALL]}[spec.qk_norm]
        options = ((_SINKS, spec.sinks), (_OUT, True), (_OUT_BIAS, spec.output_bias))
        others = [table for table, there in options if there]
        apart = _KEYS_AS_VALUES if of.keys_are_values else _QKV
        return [_FUSED_QKV if spec.fused_qkv else apart, *bias, *norms, *others]
    query = _LATENT_Q_LORA if spec.mla.q_lora else _LATENT_Q
    return [_LATENT, query, _LATENT_SPLIT if spec.mla.split else _LATENT_JOINED]


def _delta_rows(spec: ModelSpec) -> list[tuple[Row, ...]]:
    qkvz = _DELTA_JOINED if spec.delta_layout == "joined" else _DELTA_QKVZ
    return [qkvz, _DELTA_AB if spec.delta_layout == "split" else _DELTA_BA, _DELTA]


def _expert_rows(spec: ModelSpec) -> list[tuple[Row, ...]]:
    assert spec.moe is not None
    options = (
        (_BIAS, spec.moe.bias),
        (_ROUTED_BIASES, spec.moe.biases),
        (_SHARED, spec.moe.shared_width > 0),
        (_SHARED_GATE, spec.moe.shared_gate),
        ((*_DENSE, *_BESIDE), spec.moe.dense),
        (_EXPERT_SCALES, spec.moe.scales),
    )
    gate_up = _FUSED_GATE_UP if spec.fused_gate_up else _GATE_UP
    return [_ROUTED, gate_up, *(table for table, there in options if there)]


def _sizes(spec: ModelSpec, of: AttentionSpec) -> dict[str, int]:
    sizes = {
        "one": 1,
        "vocab": spec.vocab,
        "hidden": spec.hidden,
        "heads": of.heads,
        "head_dim": of.head_dim,
        "value_dim": of.value_dim,
        "pairs": of.rope.dim // 2,
        "q": of.heads * of.head_dim * (2 if spec.attention_gate else 1),
        "k": of.kv_heads * of.head_dim,
        "v": of.kv_heads * of.value_dim,
        "o": of.heads * of.value_dim,
        "ffn": spec.ffn,
    }
    sizes["qkv"] = sizes["q"] + sizes["k"] + sizes["v"]
    if spec.delta is not None:
        net = spec.delta
        sizes |= {
            "conv": net.conv_features,
            "kernel": net.kernel,
            "value_heads": net.value_heads,
            "two_heads": 2 * net.value_heads,
            "delta_value": net.value,
            "values": net.values,
            "qkvz": net.conv_features + net.values,
        }
    if spec.mla is not None:
        mla = spec.mla
        sizes |= {
            "q_lora": mla.q_lora,
            "kv_lora": mla.kv_lora,
            "nope": mla.nope,
            "kv_row": mla.kv_lora + mla.rope,
            "kv_b": spec.heads * (mla.nope + mla.value),
        }
    if spec.moe is not None:
        moe = spec.moe
        sizes |= {"experts": moe.experts, "width": moe.width, "shared": moe.shared_width}
        sizes["two_widths"] = 2 * moe.width
    return sizes
