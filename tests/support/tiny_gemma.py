"""What tiny Gemma models have beside others: norms behind each block, layers that see a window, their own heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.ops import Floats


@dataclass(frozen=True)
class Gemma:
    """`Shape.head` and `kv_heads` are those of the layers that see the whole context: the last of every `every`."""

    window: int = 48
    every: int = 2
    head: int = 32
    """Of a head in layers that see a window,"""
    kv_heads: int = 2
    """and their KV heads."""
    fourth: bool = False
    """Gemma 4: values normed, scores not scaled, part of a head rotated, outputs scaled."""
    keys_are_values: bool = False
    """In layers that see the whole context."""

    def sees_all(self, layer: int) -> bool:
        """Whether a layer sees the whole context."""
        return layer % self.every == self.every - 1

    def metadata(self, layers: int, head: int, kv_heads: int) -> dict[str, Any]:
        """Without the architecture's prefix."""
        in_windows = [not self.sees_all(layer) for layer in range(layers)]
        entries: dict[str, Any] = {
            "attention.sliding_window": self.window,
            "attention.sliding_window_pattern": in_windows,
            "rope.freq_base_swa": 10000.0,
        }
        if not self.fourth:
            return entries | {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
        return entries | {
            "attention.head_count_kv": [self.kv_heads if one else kv_heads for one in in_windows],
            "attention.key_length_swa": self.head,
            "attention.value_length_swa": self.head,
            "attention.shared_kv_layers": 0,
            "embedding_length_per_layer_input": 0,
            "rope.dimension_count": head,
            "rope.dimension_count_swa": self.head,
            "final_logit_softcapping": 30.0,
        }

    def rope_factors(self, head: int) -> Floats:
        """Divisors that leave three quarters of a head as they are."""
        pairs = head // 2
        return np.array([1.0] * (pairs // 4) + [1e30] * (pairs - pairs // 4), np.float32)
