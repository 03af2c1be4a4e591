"""Attention in numbers: of layers that see the whole context, of those that see a window of it, and latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.spec.rope import RopeSpec
from kernels.ops import CacheKind, CacheShape
from kernels.sizes import PROMPT_CHUNK
from kernels.window import WindowPages

LayerKind = Literal["full", "window", "recurrent"]
"""What a layer remembers a sequence by: a KV cache of all positions or of the last ones, or a recurrent state."""


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Grouped-query attention. Sizes in features."""

    heads: int
    kv_heads: int
    head_dim: int
    """Of a query or key head."""
    value_dim: int
    rope: RopeSpec
    softmax_scale: float
    """Factor of attention scores."""
    window: int = 0
    """Positions that a token sees, its own included; 0: all."""
    keys_are_values: bool = False
    """Values are the keys as they are projected, before norm and rope; there is no matrix for them."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one position of one layer in float16."""
        return 2 * self.kv_heads * (self.head_dim + self.value_dim)

    def window_cache(
        self,
        layers: int,
        page_size: int,
        slots: int,
        kind: CacheKind = "f16",
        chunk: int = PROMPT_CHUNK,
    ) -> CacheShape:
        """The cache of so many layers that see a window, with `slots` - 1 copies from earlier positions, for passes of
        up to `chunk` tokens."""
        pages = WindowPages(self.window, page_size, chunk)
        row = self.kv_heads, self.head_dim, self.value_dim
        return CacheShape(layers, pages.pages(slots), page_size, *row, kind, pages.ring)


@dataclass(frozen=True, slots=True)
class MlaSpec:
    """Multi-head latent attention (DeepSeek-V2). Sizes in features; `q_lora` 0 projects directly."""

    q_lora: int
    kv_lora: int
    nope: int
    rope: int
    value: int
    split: bool
    """attn_k_b and attn_v_b are there; else attn_kv_b holds both."""
