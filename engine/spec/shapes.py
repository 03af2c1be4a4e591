"""Shapes of known models, and the tensors that they have.

Sizes are those of the models' own configurations; the vocabulary is smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.spec.architectures import QkNorm, known_architecture
from kernels.recurrent import DeltaNet

VOCABULARY = 32000

Setting = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Windows:
    """Layers that see a window of positions, and the size of their own heads."""

    positions: int
    kv_heads: int
    head: int


@dataclass(frozen=True, slots=True)
class Shape:
    """One model's sizes, in features; what an architecture does not have is 0."""

    architecture: str
    layers: int
    some_layers: int
    """Layers of a benchmark that names none: a few GB."""
    hidden: int
    heads: int
    kv_heads: int
    head: int
    ff: int = 0
    dense_layers: int = 0
    experts: int = 0
    top_k: int = 0
    expert_ff: int = 0
    shared_ff: int = 0
    q_latent: int = 0
    latent: int = 0
    nope: int = 0
    rope: int = 0
    value: int = 0
    delta: DeltaNet | None = None
    """The gated delta net of all layers but each `attention_every`th."""
    attention_every: int = 1
    rotated: int = 0
    """Features of a head that rope rotates; 0: all."""
    windows: Windows | None = None
    """Layers that see a window, all but each `attention_every`th."""
    qk_norm: bool = False
    """Queries and keys are normed, as their architecture norms them."""
    qkv_bias: bool = False
    tied: bool = False
    rope_base: float = 10000.0
    recipe: str = "Q4_K_M"
    """What its usual files are in."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """Further metadata, without the architecture's prefix."""

    @property
    def gemma(self) -> bool:
        """Norms behind each block, values that are keys in layers that see everything, a dense network beside experts."""
        return known_architecture(self.architecture).dense_beside_experts

    @property
    def biases(self) -> bool:
        """Of attention's output, routers and experts; with sinks, as gpt-oss has them."""
        return known_architecture(self.architecture).biases

    def is_recurrent(self, layer: int) -> bool:
        """Whether a layer has the delta net in place of attention."""
        return self.delta is not None and (layer + 1) % self.attention_every != 0

    def sees_window(self, layer: int) -> bool:
        """Whether a layer sees a window of positions only."""
        return self.windows is not None and (layer + 1) % self.attention_every != 0

    def kv_heads_of(self, layer: int) -> int:
        """KV heads of a layer with attention."""
        return self.windows.kv_heads if self.windows and self.sees_window(layer) else self.kv_heads


def _yarn(factor: float) -> dict[str, Setting]:
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": 4096,
    }


def _deepseek_yarn(log_multiplier: float) -> dict[str, Setting]:
    return {**_yarn(40.0), "rope.scaling.yarn_log_multiplier": log_multiplier}


def _gpt_oss(layers: int, some_layers: int, experts: int) -> Shape:
    return Shape(
        "gpt-oss", layers, some_layers, hidden=2880, heads=64, kv_heads=8, head=64, qkv_bias=True,
        experts=experts, top_k=4, expert_ff=2880, recipe="MXFP4", rope_base=150000.0,
        settings={"attention.sliding_window": 128, **_yarn(32.0)},
    )  # fmt: skip


# fmt: off
SHAPES: dict[str, Shape] = {
    "qwen3-30b-a3b": Shape(
        "qwen3moe", layers=48, some_layers=8, hidden=2048, heads=32, kv_heads=4, head=128,
        experts=128, top_k=8, expert_ff=768, qk_norm=True, rope_base=1e6,
    ),
    "qwen3.6-35b-a3b": Shape(
        "qwen35moe", layers=40, some_layers=8, hidden=2048, heads=16, kv_heads=2, head=256,
        experts=256, top_k=8, expert_ff=512, shared_ff=512, qk_norm=True, rope_base=1e7,
        rotated=64, delta=DeltaNet(16, 32, 128, 128, 4, tiled=True), attention_every=4,
    ),
    "qwen3-next-80b": Shape(
        "qwen3next", layers=48, some_layers=8, hidden=2048, heads=16, kv_heads=2, head=256,
        experts=512, top_k=10, expert_ff=512, shared_ff=512, qk_norm=True, rope_base=1e7,
        rotated=64, delta=DeltaNet(16, 32, 128, 128, 4, tiled=False), attention_every=4,
    ),
    "gpt-oss-20b": _gpt_oss(layers=24, some_layers=8, experts=32),
    "gpt-oss-120b": _gpt_oss(layers=36, some_layers=4, experts=128),
    "qwen3-4b": Shape(
        "qwen3", layers=36, some_layers=8, hidden=2560, heads=32, kv_heads=8, head=128,
        ff=9728, qk_norm=True, tied=True, rope_base=1e6,
    ),
    "gemma-4-26b-a4b": Shape(
        "gemma4", layers=30, some_layers=6, hidden=2816, heads=16, kv_heads=2, head=512,
        ff=2112, experts=128, top_k=8, expert_ff=704, qk_norm=True, tied=True, rope_base=1e6,
        windows=Windows(1024, kv_heads=8, head=256), attention_every=6,
        settings={
            "final_logit_softcapping": 30.0, "rope.freq_base_swa": 10000.0,
            "attention.shared_kv_layers": 0, "embedding_length_per_layer_input": 0,
        },
    ),
    "mixtral-8x7b": Shape(
        "llama", layers=32, some_layers=4, hidden=4096, heads=32, kv_heads=8, head=128,
        experts=8, top_k=2, expert_ff=14336, rope_base=1e6,
    ),
    "glm-4.5-air": Shape(
        "glm4moe", layers=46, some_layers=4, hidden=4096, heads=96, kv_heads=8, head=128,
        ff=10944, dense_layers=1, experts=128, top_k=8, expert_ff=1408, shared_ff=1408,
        rotated=64, qkv_bias=True, rope_base=1e6,
        settings={"expert_gating_func": 2, "expert_weights_norm": True},
    ),
    "minimax-m2": Shape(
        "minimax-m2", layers=62, some_layers=2, hidden=3072, heads=48, kv_heads=8, head=128,
        experts=256, top_k=8, expert_ff=1536, rotated=64, qk_norm=True, rope_base=5e6,
        settings={"expert_gating_func": 2},
    ),
    "deepseek-v2-lite": Shape(
        "deepseek2", layers=27, some_layers=8, hidden=2048, heads=16, kv_heads=16, head=192,
        ff=10944, dense_layers=1, experts=64, top_k=6, expert_ff=1408, shared_ff=2816,
        latent=512, nope=128, rope=64, value=128,
        settings={"expert_weights_scale": 1.0, **_deepseek_yarn(0.0707)},
    ),
    "deepseek-v3": Shape(
        "deepseek2", layers=61, some_layers=4, hidden=7168, heads=128, kv_heads=128, head=192,
        ff=18432, dense_layers=3, experts=256, top_k=8, expert_ff=2048, shared_ff=2048,
        q_latent=1536, latent=512, nope=128, rope=64, value=128,
        settings={
            "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2,
            "expert_group_count": 8, "expert_group_used_count": 4, **_deepseek_yarn(0.1),
        },
    ),
}
# fmt: on


Named = tuple[str, tuple[int, ...]]


def tensor_shapes(shape: Shape, layers: int) -> Iterator[tuple[Named, int]]:
    """((name, shape outermost first), layer) of every tensor of a model cut to `layers` layers."""
    hidden = shape.hidden
    yield ("token_embd.weight", (VOCABULARY, hidden)), 0
    yield ("output_norm.weight", (hidden,)), 0
    if not shape.tied:
        yield ("output.weight", (VOCABULARY, hidden)), 0
    if shape.gemma:
        yield ("rope_freqs.weight", (shape.head // 2,)), 0
    for layer in range(layers):
        attention = _latent(shape) if shape.latent else _grouped(shape, layer)
        if shape.is_recurrent(layer):
            attention = _delta(shape)
        dense = not shape.experts or layer < shape.dense_layers
        ffn = _gated(shape, "", shape.ff) if dense else _experts(shape)
        norm = known_architecture(shape.architecture).ffn_norm
        behind = _gemma(shape) if shape.gemma else []
        for name, sizes in [(norm, (hidden,)), *attention, *ffn, *behind]:
            suffix = "" if name.endswith((".bias", ".scale")) or name == "ssm_a" else ".weight"
            yield (f"blk.{layer}.{name}{suffix}", sizes), layer


def _gemma(shape: Shape) -> list[Named]:
    hidden = shape.hidden
    names = "post_attention_norm", "post_ffw_norm", "pre_ffw_norm_2", "post_ffw_norm_1"
    norms: list[Named] = [(name, (hidden,)) for name in (*names, "post_ffw_norm_2")]
    scales: list[Named] = [
        ("layer_output_scale", (1,)),
        ("ffn_gate_inp.scale", (hidden,)),
        ("ffn_down_exps.scale", (shape.experts,)),
    ]
    return [*norms, *scales, *_gated(shape, "", shape.ff)]


def _grouped(shape: Shape, layer: int) -> list[Named]:
    hidden, kv_heads = shape.hidden, shape.kv_heads_of(layer)
    head = shape.windows.head if shape.windows and shape.sees_window(layer) else shape.head
    q, kv = shape.heads * head * (2 if shape.delta else 1), kv_heads * head
    biases: list[Named] = [("attn_q.bias", (q,)), ("attn_k.bias", (kv,)), ("attn_v.bias", (kv,))]
    further: list[Named] = [("attn_output.bias", (hidden,)), ("attn_sinks", (shape.heads,))]
    values: list[Named] = [("attn_v", (kv, hidden))]
    norms: dict[QkNorm, list[Named]] = {
        "": [],
        "head": [("attn_q_norm", (head,)), ("attn_k_norm", (head,))],
        "all": [("attn_q_norm", (q,)), ("attn_k_norm", (kv,))],
    }
    return [
        ("attn_norm", (hidden,)),
        ("attn_q", (q, hidden)),
        ("attn_k", (kv, hidden)),
        *(values if not shape.gemma or shape.sees_window(layer) else []),
        *(biases if shape.qkv_bias else []),
        *norms[known_architecture(shape.architecture).norms_of_queries(shape.qk_norm)],
        ("attn_output", (hidden, shape.heads * head)),
        *(further if shape.biases else []),
    ]


def _delta(shape: Shape) -> list[Named]:
    net, hidden = shape.delta, shape.hidden
    assert net is not None
    heads: Named = ("ssm_ba", (2 * net.value_heads, hidden))
    apart: list[Named] = [
        ("ssm_alpha", (net.value_heads, hidden)),
        ("ssm_beta", (net.value_heads, hidden)),
    ]
    return [
        ("attn_norm", (hidden,)),
        ("attn_qkv", (net.conv_features, hidden)),
        ("attn_gate", (net.values, hidden)),
        *(apart if net.tiled else [heads]),
        ("ssm_conv1d", (net.conv_features, net.kernel)),
        ("ssm_a", (net.value_heads,)),
        ("ssm_dt.bias", (net.value_heads,)),
        ("ssm_norm", (net.value,)),
        ("ssm_out", (hidden, net.values)),
    ]


def _latent(shape: Shape) -> list[Named]:
    hidden, heads, key = shape.hidden, shape.heads, shape.nope + shape.rope
    low: list[Named] = [
        ("attn_q_a", (shape.q_latent, hidden)),
        ("attn_q_a_norm", (shape.q_latent,)),
        ("attn_q_b", (heads * key, shape.q_latent)),
    ]
    return [
        ("attn_norm", (hidden,)),
        *(low if shape.q_latent else [("attn_q", (heads * key, hidden))]),
        ("attn_kv_a_mqa", (shape.latent + shape.rope, hidden)),
        ("attn_kv_a_norm", (shape.latent,)),
        ("attn_k_b", (heads, shape.latent, shape.nope)),
        ("attn_v_b", (heads, shape.value, shape.latent)),
        ("attn_output", (hidden, heads * shape.value)),
    ]


def _gated(shape: Shape, suffix: str, width: int) -> list[Named]:
    return [
        (f"ffn_gate{suffix}", (width, shape.hidden)),
        (f"ffn_up{suffix}", (width, shape.hidden)),
        (f"ffn_down{suffix}", (shape.hidden, width)),
    ]


def _experts(shape: Shape) -> list[Named]:
    count = shape.experts
    routed = [(name, (count, *sizes)) for name, sizes in _gated(shape, "_exps", shape.expert_ff)]
    bias: list[Named] = [("exp_probs_b.bias", (count,))]
    widths = {"gate": shape.expert_ff, "up": shape.expert_ff, "down": shape.hidden}
    biases: list[Named] = [
        ("ffn_gate_inp.bias", (count,)),
        *((f"ffn_{part}_exps.bias", (count, width)) for part, width in widths.items()),
    ]
    return [
        ("ffn_gate_inp", (count, shape.hidden)),
        *(bias if shape.settings.get("expert_gating_func") == 2 else []),
        *routed,
        *(biases if shape.biases else []),
        *(_gated(shape, "_shexp", shape.shared_ff) if shape.shared_ff else []),
        *([("ffn_gate_inp_shexp", (shape.hidden,))] if shape.delta else []),
    ]
