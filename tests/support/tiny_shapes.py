"""The shapes of the tiny models: one entry for each architecture and variant."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from kernels.recurrent import DeltaNet
from tests.support.tiny_gemma import Gemma


@dataclass(frozen=True)
class Shape:
    """The sizes of one tiny model; what an architecture does not have stays 0."""

    hidden: int = 256
    layers: int = 2
    heads: int = 8
    kv_heads: int = 2
    head: int = 32
    ff: int = 512
    dense_layers: int = 0
    experts: int = 0
    top_k: int = 0
    expert_ff: int = 256
    shared_ff: int = 0
    shared_gate: bool = False
    groups: int = 1
    top_groups: int = 1
    sigmoid: bool = False
    latent: int = 0
    q_latent: int = 0
    nope: int = 0
    rope: int = 0
    value: int = 0
    split: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    norm_all: bool = False
    """The norms of queries and keys are of all heads together."""
    rope_factors: bool = False
    tied: bool = False
    pieces: bool = False
    delta: DeltaNet | None = None
    """Every second layer, the first among them, has a gated delta net."""
    delta_layout: str = "split"
    rotated: int = 0
    """Features of a head that rope rotates; 0: all."""
    window: int = 0
    """Positions that every second layer sees, the first among them; 0: all see all."""
    biases: bool = False
    """Of attention's output, the router and the experts; attention has sinks, and SwiGLU is clamped."""
    extra_layers: int = 0
    """Blocks behind the last layer that predict further tokens."""
    gemma: Gemma | None = None
    extra_norms: tuple[str, ...] = ()
    """Further norms of such a block."""
    fused: tuple[str, ...] = ()
    """Which matrices are one: qkv, gate_up."""
    ffn_norm: str = "ffn_norm"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> int:
        """So many layers have one of each kind."""
        return self.dense_layers + (2 if self.delta or self.window or self.gemma else 1)

    def is_recurrent(self, layer: int) -> bool:
        return self.delta is not None and layer % 2 == 0 and layer < self.layers


_YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 128,
}
_MLA = Shape(
    layers=3, dense_layers=1, experts=8, top_k=3, shared_ff=512, latent=256, nope=64, rope=32, value=32
)  # fmt: skip
_LITE = replace(_MLA, metadata={**_YARN, "rope.scaling.yarn_log_multiplier": 0.0707})
_V2 = replace(
    _MLA,
    heads=4,
    value=64,
    q_latent=256,
    metadata={**_YARN, "expert_weights_scale": 4.0, "rope.scaling.yarn_log_multiplier": 0.1},
)
_V3 = replace(
    _V2,
    experts=16,
    top_k=4,
    groups=4,
    top_groups=2,
    sigmoid=True,
    shared_ff=256,
    metadata={
        **_V2.metadata,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "expert_group_count": 4,
        "expert_group_used_count": 2,
    },
)
_DELTA = DeltaNet(key_heads=2, value_heads=4, key=32, value=32, kernel=4, tiled=True)
_QWEN35 = Shape(
    layers=4, heads=4, head=64, rotated=16, qk_norm=True, delta=_DELTA,
    ffn_norm="post_attention_norm",
    metadata={"full_attention_interval": 2, "rope.dimension_sections": [3, 3, 2, 0]},
)  # fmt: skip
_QWEN35_MOE = replace(_QWEN35, experts=16, top_k=4, shared_ff=256, shared_gate=True)
_QWEN3_NEXT = replace(
    _QWEN35_MOE,
    delta=replace(_DELTA, tiled=False),
    delta_layout="ba",
    metadata={"full_attention_interval": 2},
)
_SIGMOID = {
    "expert_weights_scale": 1.8,
    "expert_weights_norm": True,
    "expert_gating_func": 2,
}
_AIR = Shape(
    layers=3, heads=6, head=64, rotated=16, qkv_bias=True, dense_layers=1, experts=16, top_k=4,
    shared_ff=256, sigmoid=True, extra_layers=1, ffn_norm="post_attention_norm",
    metadata={**_SIGMOID, "expert_weights_scale": 1.0},
)  # fmt: skip
_DOTS1 = Shape(
    layers=3, kv_heads=8, dense_layers=1, experts=16, top_k=4, shared_ff=512, sigmoid=True,
    qk_norm=True, metadata=_SIGMOID,
)  # fmt: skip
_BAILING = replace(
    _DOTS1, kv_heads=2, shared_ff=512, rotated=16, groups=4, top_groups=2, fused=("qkv",),
    extra_layers=1, extra_norms=("layer_output_norm",),
    metadata={
        **_SIGMOID, "expert_group_count": 4, "expert_group_used_count": 2,
        "expert_shared_feed_forward_length": 512,
    },
)  # fmt: skip
_EXAONE = replace(
    _DOTS1, kv_heads=2, shared_ff=256, window=32,
    metadata={
        **_SIGMOID, "attention.sliding_window": 32,
        "attention.sliding_window_pattern": [True, False, True],
        "expert_shared_feed_forward_length": 256, "rope.dimension_count": 32,
    },
)  # fmt: skip
_MINIMAX = Shape(
    heads=6, head=64, rotated=32, experts=16, top_k=4, expert_ff=256, sigmoid=True,
    qk_norm=True, norm_all=True, metadata={"expert_gating_func": 2},
)  # fmt: skip
_WHOLE_RAMP = {**_YARN, "rope.freq_base": 4.5}
"""From the first pair to the last: ggml rounds a ramp's ends, which gpt-oss does not."""
_GPT_OSS = Shape(
    layers=3, head=64, heads=4, experts=8, top_k=4, qkv_bias=True, window=32, biases=True,
    ffn_norm="post_attention_norm",
    metadata={**_WHOLE_RAMP, "attention.sliding_window": 32},
)  # fmt: skip
_LLAMA = Shape(heads=8, kv_heads=2, head=32)

SHAPES: dict[tuple[str, str], Shape] = {
    ("qwen3moe", "qwen3moe"): Shape(head=64, experts=16, top_k=4, qk_norm=True),
    ("qwen35moe", "qwen35moe"): _QWEN35_MOE,
    ("qwen35moe", "fused"): replace(_QWEN35_MOE, fused=("qkv", "gate_up")),
    ("qwen35moe", "mtp"): replace(_QWEN35_MOE, extra_layers=1),
    ("qwen35", "qwen35"): replace(_QWEN35, tied=True),
    ("qwen3next", "qwen3next"): _QWEN3_NEXT,
    ("qwen3next", "joined"): replace(_QWEN3_NEXT, delta_layout="joined"),
    ("qwen2moe", "qwen2moe"): Shape(
        kv_heads=4, experts=8, top_k=2, shared_ff=512, shared_gate=True, qkv_bias=True
    ),
    ("gpt-oss", "gpt-oss"): _GPT_OSS,
    ("gpt-oss", "narrow"): replace(
        _GPT_OSS,
        hidden=288,
        expert_ff=160,
        window=7,
        metadata={**_WHOLE_RAMP, "attention.sliding_window": 7},
    ),
    ("deepseek2", "v2-lite"): _LITE,
    ("deepseek2", "v2-lite-split"): replace(_LITE, split=True),
    ("deepseek2", "v2"): _V2,
    ("deepseek2", "v2-split"): replace(_V2, split=True),
    ("deepseek2", "v3"): _V3,
    ("deepseek2", "v3-split"): replace(_V3, split=True),
    ("deepseek2", "4.7-flash"): replace(
        _V3,
        split=True,
        groups=1,
        top_groups=1,
        fused=("gate_up",),
        extra_layers=1,
        metadata=_SIGMOID,
    ),
    ("glm4moe", "air"): _AIR,
    ("glm4moe", "355b"): replace(
        _AIR,
        qk_norm=True,
        fused=("qkv",),
        metadata={**_AIR.metadata, "rope.dimension_sections": [3, 3, 2, 0]},
    ),
    ("dots1", "dots1"): _DOTS1,
    ("bailingmoe2", "bailingmoe2"): _BAILING,
    ("exaone-moe", "exaone-moe"): _EXAONE,
    ("minimax-m2", "minimax-m2"): _MINIMAX,
    ("llama", "dense"): _LLAMA,
    ("llama", "rope-freqs"): replace(_LLAMA, rope_factors=True),
    ("llama", "mixtral"): replace(_LLAMA, kv_heads=4, experts=8, top_k=2),
    ("llama", "pieces"): replace(_LLAMA, pieces=True),
    ("gemma3", "gemma3"): Shape(
        kv_heads=2, head=32, qk_norm=True, tied=True, gemma=Gemma(window=48, head=32, kv_heads=2)
    ),
    ("gemma4", "gemma4"): Shape(
        kv_heads=2,
        head=64,
        qk_norm=True,
        tied=True,
        experts=16,
        top_k=4,
        gemma=Gemma(kv_heads=4, fourth=True, keys_are_values=True),
    ),
    ("gemma4", "gemma4-dense"): Shape(
        kv_heads=2, head=64, qk_norm=True, tied=True, gemma=Gemma(kv_heads=4, fourth=True)
    ),
    ("qwen2", "qwen2"): Shape(qkv_bias=True),
    ("qwen2", "tied"): Shape(qkv_bias=True, tied=True),
    ("qwen3", "qwen3"): Shape(heads=7, kv_heads=1, head=64, qk_norm=True),
}
"""(architecture, variant) of every tiny model; the first variant of an architecture is its default."""

AS_WRITTEN = dict(SHAPES)
"""Tests may change `SHAPES` for themselves."""
