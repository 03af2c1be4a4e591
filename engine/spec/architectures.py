"""The architectures that the native runtime runs: one table of how they differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kernels.ops import Activation, Gating

QkNorm = Literal["", "head", "all"]
"""RMSNorm of queries and keys before rope: none, in each head, over all heads together."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What an architecture's name alone says."""

    interleaved: bool = False
    """Rope turns neighbouring features, not halves."""
    experts: Literal["never", "always", "counted"] = "never"
    """`counted`: when the file has an expert count."""
    expert_keys: frozenset[str] = frozenset()
    """Metadata that llama.cpp reads of the experts besides their number; without a key the default holds."""
    expert_width: str = "expert_feed_forward_length"
    """The key of an expert's width."""
    gating: Gating | Literal["said"] = "softmax"
    """Where the file does not say; `said`: it must."""
    normalise: bool = True
    """Routing weights are divided by their sum, unless `expert_weights_norm` is read."""
    score_bias: bool = False
    """exp_probs_b has to be there; without, it may be."""
    qk_norm: QkNorm | Literal["found"] = ""
    """`found`: in each head where the file has it."""
    shared_gate: bool = False
    shared_always: bool = False
    """There is a shared expert, whose width is that of all; the file's count of them is not read."""
    latent: bool = False
    """Attention is latent (MLA)."""
    attention_gate: bool = False
    """attn_q holds each head's query and then the gate of its output."""
    delta_net: Literal["", "tiled", "repeated"] = ""
    """Most layers have a gated delta net in place of attention; how its value heads share key heads."""
    ffn_norm: str = "ffn_norm"
    """What the norm before the network is called."""
    window_every: int = 0
    """Of so many layers all but the last see a window of positions only; 0: none does."""
    sinks: bool = False
    """Attention has one more score a head, without a value."""
    biases: bool = False
    """Of attention's output, of routers and of experts."""
    whole_yarn_pairs: bool = True
    """YaRN's ramp is rounded to whole pairs of features."""
    activation: Activation = "swiglu"
    window_optional: bool = False
    """Files without a window see everything."""
    window_rope: bool = False
    """Layers that see a window have a rope of their own, which is never scaled."""
    full_rope: bool = True
    """Layers that see the whole context have rope."""
    rope_factors: Literal["never", "may", "must"] = "never"
    """Whether the file brings divisors of rope's frequencies, for layers that see the whole context."""
    softmax_scale: float = 0.0
    """Factor of attention scores; 0: one over the root of a head's length,"""
    large_layers: int = 0
    """or, with so many layers, of the hidden size over the heads."""
    post_norm: bool = False
    """What attention and the network give is normed before it is added to the residual."""
    value_norm: bool = False
    """Values are normed too, without a weight."""
    scaled_embedding: bool = False
    """Embeddings are multiplied by the root of their length."""
    dense_beside_experts: bool = False
    """Layers with experts have a dense network too."""

    def norms_of_queries(self, found: bool) -> QkNorm:
        """Those of a model whose layers have attn_q_norm, or have not."""
        return self.qk_norm if self.qk_norm != "found" else "head" if found else ""


_ROUTER_KEYS = frozenset({"expert_gating_func", "expert_weights_norm", "expert_weights_scale"})
_EXPERT_KEYS = _ROUTER_KEYS | {"expert_shared_count", "leading_dense_block_count"}
_SHARED_WIDTH = frozenset({"expert_shared_feed_forward_length"})

_QWEN35 = Architecture(
    qk_norm="head", attention_gate=True, delta_net="tiled", ffn_norm="post_attention_norm"
)
_QWEN35_MOE = replace(_QWEN35, experts="always", expert_keys=_SHARED_WIDTH, shared_gate=True)
_GEMMA = Architecture(
    qk_norm="head", post_norm=True, activation="geglu", scaled_embedding=True, window_every=6,
    window_rope=True,
)  # fmt: skip
_DOTS1 = Architecture(experts="always", expert_keys=_EXPERT_KEYS, gating="said", qk_norm="head")

# fmt: off
ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        interleaved=True, experts="counted", expert_width="feed_forward_length", rope_factors="may"
    ),
    "qwen2": Architecture(),
    "qwen2moe": Architecture(
        experts="always", expert_keys=_SHARED_WIDTH, normalise=False, shared_gate=True
    ),
    "qwen3": Architecture(qk_norm="head"),
    "qwen3moe": Architecture(experts="always", qk_norm="head"),
    "qwen3next": replace(_QWEN35_MOE, delta_net="repeated"),
    "qwen35": _QWEN35,
    "qwen35moe": _QWEN35_MOE,
    "gemma3": replace(_GEMMA, large_layers=62, window_optional=True),
    "gemma4": replace(
        _GEMMA, value_norm=True, experts="counted", dense_beside_experts=True,
        rope_factors="must", softmax_scale=1.0,
    ),
    "deepseek2": Architecture(
        interleaved=True, experts="counted", expert_keys=_EXPERT_KEYS, latent=True
    ),
    "glm4moe": Architecture(
        experts="always", expert_keys=_EXPERT_KEYS, gating="sigmoid", score_bias=True,
        qk_norm="found", ffn_norm="post_attention_norm",
    ),
    "dots1": _DOTS1,
    "bailingmoe2": replace(_DOTS1, expert_keys=_EXPERT_KEYS | _SHARED_WIDTH),
    "exaone-moe": replace(
        _DOTS1, expert_keys=_EXPERT_KEYS | _SHARED_WIDTH, shared_always=True, window_every=4,
        full_rope=False, rope_factors="may",
    ),
    "gpt-oss": Architecture(
        experts="always", normalise=False, gating="softmax of the chosen", window_every=2, sinks=True,
        biases=True, activation="clamped swiglu", whole_yarn_pairs=False, ffn_norm="post_attention_norm",
    ),
    "minimax-m2": Architecture(
        experts="always", expert_keys=frozenset({"expert_gating_func"}),
        expert_width="feed_forward_length", gating="said", score_bias=True, qk_norm="all",
    ),
}
# fmt: on
"""What the native runtime runs."""


def known_architecture(name: str) -> Architecture:
    """The table's row; for an architecture that only llama.cpp runs what is likely."""
    return ARCHITECTURES.get(name, Architecture(qk_norm="found"))


def is_native(architecture: str) -> bool:
    """Whether the native runtime knows this architecture."""
    return architecture in ARCHITECTURES
