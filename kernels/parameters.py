"""What ops are told beside their buffers: tensors of a file, ropes, routings, shapes of caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from kernels.quants import QuantType

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Weights as a file holds them. `shape` is outermost first: (rows, cols) or (experts, rows, cols)."""

    name: str
    type: QuantType
    shape: tuple[int, ...]
    data: Bytes

    @property
    def rows(self) -> int:
        """Rows of one matrix (outputs)."""
        return self.shape[-2]

    @property
    def cols(self) -> int:
        """Columns (inputs); the length of a vector."""
        return self.shape[-1]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of the features `offset .. offset + 2 * len(frequencies) - 1` of a head.

    Pair i is rotated by `position * frequencies[i]` radians; cos and sin are multiplied by `magnitude`
    (YaRN's attention factor). Pairs are (2i, 2i + 1) when `interleaved`, else (i, i + half).
    """

    frequencies: tuple[float, ...]
    interleaved: bool
    offset: int = 0
    magnitude: float = 1.0


Gating = Literal["softmax", "sigmoid", "softmax of the chosen"]

Activation = Literal["swiglu", "clamped swiglu", "geglu"]
"""What becomes of a feed-forward's gate and up: silu(gate) * up (Shazeer, 2020); or, with gate at most LIMIT
and up within LIMIT of zero, gate * sigmoid(ALPHA * gate) * (up + 1) (gpt-oss, 2025);
or gelu(gate) * up, GELU in its tanh form (Hendrycks and Gimpel, 2016)."""
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
"""In the order of their numbers in kernels."""
LIMIT, ALPHA = 7.0, 1.702


@dataclass(frozen=True, slots=True)
class Routing:
    """How a router's logits become experts and weights.

    Scores are softmax or sigmoid of the logits; or the logits themselves, and the weights the softmax of those
    that were chosen. `groups` > 1 first keeps the `top_groups` groups with
    the largest sum of their two best (biased) scores. The `top_k` best biased scores choose experts;
    their unbiased scores are the weights, divided by their sum when `normalise` (never by less than
    `floor`), then multiplied by `scale`.
    """

    top_k: int
    gating: Gating = "softmax"
    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1
    floor: float = 6.103515625e-5


CacheKind = Literal["f16", "q8"]

Q8_BLOCK = 32
"""Features of a cache in 8 bits that share a scale."""


@dataclass(frozen=True, slots=True)
class CacheShape:
    """A paged KV cache of one layer kind: `pages` pages of `page_size` positions in each of `layers`.

    Grouped-query attention stores `heads` keys of `key` and values of `value` features a position;
    latent attention (MLA) stores one row of `key` features (latent, then rope) with `heads` 1 and
    `value` 0: its values are the first features of the key.

    Numbers are float16, or, for "q8", int8 with a float16 scale for every `Q8_BLOCK` features of a row
    (ggml's Q8_0); the row's features are then a multiple of that, else ValueError.

    Layers that see a window of positions only need no more than those: with `ring`, positions go round in
    the first `ring` pages, and no op writes to the pages behind them.
    """

    layers: int
    pages: int
    page_size: int
    heads: int
    key: int
    value: int
    kind: CacheKind = "f16"
    ring: int = 0
    """Position p lives in page `p // page_size % ring`, whatever pages a sequence has; 0: in those."""

    def __post_init__(self) -> None:
        if not 0 <= self.ring <= self.pages or (self.ring and not self.value):
            raise ValueError(f"a ring of {self.ring} in {self}")
        for features in (self.key, self.value):
            if self.kind == "q8" and features % Q8_BLOCK:
                raise ValueError(f"{features} features in 8 bits: not a multiple of {Q8_BLOCK}")

    @property
    def bytes_per_position(self) -> int:
        """Bytes of one position over all layers."""
        features = self.layers * self.heads * (self.key + self.value)
        if self.kind == "q8":
            return features // Q8_BLOCK * (Q8_BLOCK + 2)
        return 2 * features
