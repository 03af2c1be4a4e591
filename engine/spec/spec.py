"""A model in numbers: layers, heads, experts, bytes, parameters, and the arithmetic that follows.

Metadata are read in `engine.spec.reader`, tensors are checked in `engine.spec.tensors`; the meaning
of every key is llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.protocol import RuntimeName
from engine.spec.architectures import QkNorm, is_native
from engine.spec.attention import AttentionSpec, LayerKind, MlaSpec
from engine.spec.groups import Group, GroupSize
from engine.spec.rope import RopeSpec
from kernels.ops import Activation, Gating, Routing
from kernels.recurrent import DeltaNet, StateShape

__all__ = [
    "AttentionSpec", "Group", "GroupSize", "LayerKind", "MlaSpec", "ModelSpec", "MoeSpec", "RopeSpec",
    "is_native",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class MoeSpec:
    """Routed experts. `width` and `shared_width` in features; `shared_width` 0: no shared experts."""

    experts: int
    top_k: int
    width: int
    shared_width: int = 0
    shared_gate: bool = False
    """Shared experts are weighted by a sigmoid of their own (qwen2moe)."""
    leading_dense: int = 0
    """Layers at the start that have a dense network in place of experts."""
    gating: Gating = "softmax"
    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1
    bias: bool = False
    """Scores get a bias (exp_probs_b) before experts are chosen."""
    biases: bool = False
    """Routers and experts have biases."""
    dense: bool = False
    """A dense network of the model's width is beside the experts, with norms of its own."""
    scales: bool = False
    """Each expert's weight is multiplied by a factor of its own."""

    def to_routing(self) -> Routing:
        """For the op set."""
        return Routing(
            top_k=self.top_k,
            gating=self.gating,
            normalise=self.normalise,
            scale=self.scale,
            groups=self.groups,
            top_groups=self.top_groups,
        )


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. For architectures that only llama.cpp runs, unknown sizes are 0."""

    architecture: str
    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    """Features of a query or key head."""
    value_dim: int
    ffn: int
    """Width of the dense network; 0 when every layer has experts."""
    vocab: int
    context: int
    """Tokens that the model was trained for."""
    eps: float
    rope: RopeSpec
    mla: MlaSpec | None
    moe: MoeSpec | None
    qk_norm: QkNorm
    qkv_bias: bool
    tied: bool
    """The embedding is also the output matrix."""
    softmax_scale: float
    """Factor of attention scores."""
    quantisation: str
    template: str | None
    extra_layers: int = 0
    """Layers behind the last one, for the prediction of further tokens; not used."""
    unsupported: str = ""
    """Why the native runtime cannot run this model; empty when it can."""
    ik_types: bool = False
    """Some tensor is of a type of ik_llama.cpp, so that llama.cpp cannot open the file."""
    kv_bytes_per_token: int = 0
    """Bytes of KV cache a token takes in float16, in the layers that keep all of them."""
    windowed: AttentionSpec | None = None
    """Attention of the layers that see a window of positions only."""
    windows: tuple[bool, ...] = ()
    """Which layers those are; empty: none."""
    delta: DeltaNet | None = None
    """The gated delta net of recurrent layers."""
    recurrent: tuple[bool, ...] = ()
    """Which layers are recurrent and have no KV cache; empty: none."""
    attention_gate: bool = False
    """Attention's output is multiplied by a sigmoid gate."""
    sinks: bool = False
    """Attention has one more score a head, without a value."""
    output_bias: bool = False
    """attn_output has a bias."""
    ffn_norm: str = "ffn_norm"
    """What the norm before the network is called."""
    post_norm: bool = False
    """What attention and the network give is normed before it is added to the residual."""
    value_norm: bool = False
    """Values are normed too, without a weight."""
    activation: Activation = "swiglu"
    """Of every gated network."""
    embedding_factor: float = 1.0
    """Embeddings are multiplied by it."""
    logit_cap: float = 0.0
    """Logits become cap * tanh(logits / cap); 0: they do not."""
    output_scales: bool = False
    """Each layer's output is multiplied by a factor of its own."""
    keys_are_values: bool = False
    """As `AttentionSpec` has it."""
    fused_qkv: bool = False
    """Attention's queries, keys and values are one matrix, attn_qkv."""
    fused_qkv_bias: bool = False
    """So are their biases, attn_qkv.bias."""
    fused_gate_up: bool = False
    """The experts' gates and ups are one stack, ffn_gate_up_exps."""
    delta_layout: Literal["split", "ba", "joined"] = "split"
    """The delta net's projections: all apart; alpha and beta in ssm_ba; and queries to z in ssm_in too."""
    groups: Mapping[Group, GroupSize] = field(default_factory=dict)
    layer_groups: tuple[Mapping[Group, GroupSize], ...] = ()
    """What of `groups` belongs to each layer; empty where only a shape is known."""

    @property
    def native(self) -> bool:
        """Whether the native runtime can run this model."""
        return is_native(self.architecture) and not self.unsupported

    @property
    def runtime(self) -> RuntimeName:
        """What runs it where nobody asks for another."""
        return "native" if self.native else "llama.cpp"

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors that are read."""
        return sum(size.bytes for group, size in self.groups.items() if group != "unused")

    @property
    def parameters(self) -> int:
        """Parameters in all."""
        return sum(size.parameters for group, size in self.groups.items() if group != "unused")

    @property
    def active_bytes_per_token(self) -> int:
        """Bytes of weights that one token reads while decoding."""
        return self._active({group: size.bytes for group, size in self.groups.items()})

    @property
    def active_parameters(self) -> int:
        """Parameters that take part in one token."""
        return self._active({group: size.parameters for group, size in self.groups.items()})

    def _active(self, sizes: Mapping[Group, int]) -> int:
        always: tuple[Group, ...] = (
            *("attention", "router", "shared", "dense", "norms", "output", "other"),
        )
        total = sum(sizes.get(group, 0) for group in always)
        embedding = sizes.get("embedding", 0)
        total += embedding if self.tied else embedding // max(1, self.vocab)
        if self.moe is not None:
            total += sizes.get("experts", 0) * self.moe.top_k // self.moe.experts
        return total

    def groups_parameters(self, *groups: Group) -> int:
        """Parameters of some groups."""
        return sum(self.groups[group].parameters for group in groups if group in self.groups)

    def kind(self, layer: int) -> LayerKind:
        """What a layer remembers a sequence by."""
        if self.is_recurrent(layer):
            return "recurrent"
        return "window" if self.windows and self.windows[layer] else "full"

    def attention(self, kind: LayerKind) -> AttentionSpec:
        """Attention of the layers of a kind."""
        if kind == "window":
            assert self.windowed is not None
            return self.windowed
        heads = self.heads, self.kv_heads, self.head_dim, self.value_dim
        return AttentionSpec(
            *heads, self.rope, self.softmax_scale, keys_are_values=self.keys_are_values
        )

    @property
    def attentions(self) -> tuple[AttentionSpec, ...]:
        """Attention of every kind that there is."""
        full = (self.attention("full"),) if self.attention_layers else ()
        return full if self.windowed is None else (*full, self.windowed)

    @property
    def keeps_state(self) -> bool:
        """Whether what it remembers cannot be cut back to an earlier token."""
        return self.delta is not None or self.windowed is not None

    def is_recurrent(self, layer: int) -> bool:
        """Whether this layer has a recurrent state in place of a KV cache."""
        return bool(self.recurrent) and self.recurrent[layer]

    @property
    def recurrent_layers(self) -> int:
        """Layers with a recurrent state."""
        return sum(self.recurrent)

    @property
    def attention_layers(self) -> int:
        """Layers with a KV cache of the whole context."""
        return self.layers - self.recurrent_layers - sum(self.windows)

    @property
    def state_bytes(self) -> int:
        """Bytes of one recurrent state of all layers, float32; 0 where there is none."""
        if self.delta is None:
            return 0
        return StateShape(self.recurrent_layers, 1, self.delta).bytes_per_slot

    @property
    def window_row_bytes(self) -> int:
        """Bytes of one position in all layers that see a window, in float16."""
        return sum(self.windows) * self.windowed.row_bytes if self.windowed is not None else 0

    def is_moe_layer(self, layer: int) -> bool:
        """Whether this layer has routed experts."""
        return self.moe is not None and layer >= self.moe.leading_dense

    @property
    def moe_layers(self) -> int:
        """Layers with routed experts."""
        return 0 if self.moe is None else self.layers - self.moe.leading_dense
