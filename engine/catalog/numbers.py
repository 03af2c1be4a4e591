"""A model's architecture numbers as the catalogue keeps them, and what its KV cache takes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.common.json_files import Fields
from engine.spec.architectures import is_native
from kernels.recurrent import DeltaNet


@dataclass(frozen=True, slots=True)
class Numbers:
    """A model's architecture numbers, in features; what it does not have is 0."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocab: int
    context: int
    experts: int
    top_k: int
    expert_width: int
    ffn: int = 0
    """Width of the dense network of the first `dense_layers` layers; in Gemma 4 of every layer, beside
    the experts."""
    dense_layers: int = 0
    shared_width: int = 0
    q_lora: int = 0
    kv_lora: int = 0
    nope: int = 0
    rope: int = 0
    value: int = 0
    qk_norm: bool = False
    biases: bool = False
    """Attention's projections have biases, and in gpt-oss the experts too."""
    linear_every: int = 0
    """Of so many layers only the last has attention; the others are gated delta nets (Qwen3-Next)."""
    linear_heads: int = 32
    """Value heads of a gated delta net; it has 16 key heads, all of 128 features, and a convolution of 4."""
    extra_layers: int = 0
    """Layers behind the last that predict further tokens and are not read."""
    extra_embeddings: bool = False
    """Those have an embedding and an output matrix of their own."""
    tied: bool = False
    """The embedding is also the output matrix."""
    router_bias: bool = False
    """Scores get a bias (exp_probs_b) before experts are chosen."""
    full_every: int = 0
    """Of so many layers only the last sees every position; the others see the last `window` of them."""
    window: int = 0
    """Positions, the token's own among them."""
    window_kv_heads: int = 0
    """Of layers with a window, where `kv_heads` is of the others only."""
    window_head: int = 0
    """Of layers with a window, where `head` is of the others only."""
    value_is_key: bool = False
    """Layers without a window have no attn_v: their values are made of attn_k's output (Gemma 4)."""
    index_heads: int = 0
    """Query heads that choose the positions a token sees (DeepSeek-V3.2)."""
    index_head: int = 0
    """Features of each of those; one key of as many is cached a position."""

    @property
    def delta(self) -> DeltaNet | None:
        """The gated delta net of its recurrent layers."""
        if not self.linear_every:
            return None
        tiled = self.architecture != "qwen3next"
        return DeltaNet(16, self.linear_heads, 128, 128, 4, tiled)

    def is_recurrent(self, layer: int) -> bool:
        """Whether a layer is a gated delta net in place of attention."""
        return bool(self.linear_every) and (layer + 1) % self.linear_every != 0

    def has_window(self, layer: int) -> bool:
        """Whether a layer sees the last `window` positions only."""
        return bool(self.full_every) and (layer + 1) % self.full_every != 0

    @property
    def attention_layers(self) -> int:
        """Layers with a KV cache."""
        return sum(not self.is_recurrent(layer) for layer in range(self.layers))

    @property
    def window_layers(self) -> int:
        """Layers that see a window."""
        return sum(map(self.has_window, range(self.layers)))

    @property
    def full_kv_bytes(self) -> int:
        """Bytes a position takes, in float16, in the layers that see every position."""
        row = 2 * self.kv_heads * self.head
        if self.kv_lora:
            row = self.kv_lora + self.rope
        return 2 * (self.attention_layers - self.window_layers) * (row + self.index_head)

    @property
    def window_kv_bytes(self) -> int:
        """Bytes a position takes, in float16, in the layers that see a window."""
        heads, head = self.window_kv_heads or self.kv_heads, self.window_head or self.head
        return 2 * self.window_layers * 2 * heads * head

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that every further token takes in the KV cache in float16.

        Our engine keeps a window's positions only, llama.cpp as we open it (swa_full) every position.
        """
        grows = 0 if is_native(self.architecture) else self.window_kv_bytes
        return self.full_kv_bytes + grows


_WHOLE: dict[str, tuple[int, int]] = {
    "layers": (1, 512),
    "hidden": (1, 1 << 20),
    "heads": (1, 4096),
    "kv_heads": (1, 4096),
    "head": (1, 4096),
    "vocab": (1, 1 << 22),
    "context": (256, (1 << 31) - 1),
    "experts": (1, 1024),
    "top_k": (1, 1024),
    "expert_width": (1, 1 << 20),
}
_OPTIONAL = (
    *("ffn", "dense_layers", "shared_width", "q_lora", "kv_lora", "nope", "rope", "value"),
    *("linear_every", "extra_layers", "full_every", "window", "window_kv_heads", "window_head"),
    *("index_heads", "index_head"),
)
_FLAGS = ("qk_norm", "biases", "tied", "router_bias", "value_is_key", "extra_embeddings")


def read_numbers(fields: Fields) -> Numbers:
    """A model's numbers in the catalogue. Raises `DataFileError`."""
    whole = {name: fields.whole(name, *bounds) for name, bounds in _WHOLE.items()}
    whole |= {name: fields.whole(name, 0, 1 << 20, 0) for name in _OPTIONAL}
    whole["linear_heads"] = fields.whole("linear_heads", 1, 4096, 32)
    if whole["top_k"] > whole["experts"] or whole["dense_layers"] > whole["layers"]:
        raise fields.fault("top_k", "or dense_layers is more than there are")
    if bool(whole["window"]) != bool(whole["full_every"]):
        raise fields.fault("window", "and full_every go together")
    if unknown := set(fields.names()) - {"architecture", "linear_heads", *whole, *_FLAGS}:
        raise fields.fault(min(unknown), "is not one of the numbers")
    found: dict[str, Any] = {**whole, **{name: fields.flag(name, False) for name in _FLAGS}}
    return Numbers(architecture=fields.text("architecture"), **found)
