"""The op set: the few coarse operations that a forward pass is written over.

A forward pass handles `n` new tokens of one sequence, at positions `start .. start + n - 1`. Activations
are float32, row-major, (n, features). What a buffer is belongs to the implementation: a torch tensor in
`kernels.reference` and `kernels.gpu`, a numpy array in `kernels.cpu`. Weights stay in their GGUF type. Ops
whose name ends in `_add` add to `residual` in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kernels.quants import QuantType
from kernels.recurrent import RecurrentOps, W, X

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


@dataclass(frozen=True, slots=True)
class Routing:
    """How a router's logits become experts and weights.

    Scores are softmax or sigmoid of the logits. `groups` > 1 first keeps the `top_groups` groups with
    the largest sum of their two best (biased) scores. The `top_k` best biased scores choose experts;
    their unbiased scores are the weights, divided by their sum when `normalise` (never by less than
    `floor`), then multiplied by `scale`.
    """

    top_k: int
    gating: Literal["softmax", "sigmoid"] = "softmax"
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
    """

    layers: int
    pages: int
    page_size: int
    heads: int
    key: int
    value: int
    kind: CacheKind = "f16"

    def __post_init__(self) -> None:
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


PassInput = Ints | Floats
"""What a pass begins with: tokens (n,), or the hidden state (n, hidden) that the layers before it made."""

C = TypeVar("C")
"""A KV cache."""

Forward = Callable[[PassInput, Ints, int], X]
"""forward(pass_input, pages, start) -> the result's buffer"""


class Ops(RecurrentOps[X, W], Protocol[X, W, C]):
    """One implementation of the op set."""

    name: str

    def matrix(self, tensor: Tensor) -> W:
        """Weights for products: (rows, cols), or (count, rows, cols) for experts and heads."""
        ...

    def table(self, tensor: Tensor) -> W:
        """The (vocabulary, hidden) rows that `embed` reads."""
        ...

    def repacks(self, tensor: Tensor) -> bool:
        """Whether `matrix` copies these weights, so that the file's pages may be released."""
        ...

    def vector(self, tensor: Tensor) -> W:
        """A float32 vector: a norm's weight, a bias, a router's bias."""
        ...

    def kv_cache(self, shape: CacheShape) -> C:
        """An empty cache. The CPU stores float16 only (else ValueError), the reference always float32."""
        ...

    def copy_page(self, cache: C, source: int, target: int) -> None:
        """Copy a page in every layer."""
        ...

    def record(self, forward: Forward[X]) -> Forward[X]:
        """`forward(pass_input, pages, start)` of one token, made quick to repeat, or `forward` itself.

        It begins with `embed` or `set_hidden` of its input, and does the same ops with the same weights and
        cache every time. What it returns is a buffer of its own.
        """
        ...

    def embed(self, table: W, tokens: Ints) -> X:
        """Rows of the (vocabulary, hidden) table: (n, hidden), dequantised to float32."""
        ...

    def set_hidden(self, rows: Floats) -> X:
        """A hidden state that another op set computed, (n, hidden), in a buffer of its own."""
        ...

    def last_row(self, x: X) -> X:
        """The last token's features: (1, features)."""
        ...

    def from_numpy(self, x: Floats) -> X:
        """A buffer with these values, (n, features) float32, or (n, top_k) int32 for expert ids."""
        ...

    def to_numpy(self, x: X) -> Floats:
        """The buffer on the host, (n, features)."""
        ...

    def norm_linear(
        self,
        x: X,
        norm: W | None,
        eps: float,
        weights: Sequence[W],
        biases: Sequence[W | None] | None = None,
    ) -> list[X]:
        """RMSNorm of x (left out when `norm` is None), then one product a weight: (n, rows) each."""
        ...

    def linear_add(self, x: X, weight: W, residual: X) -> None:
        """residual += x @ weight.T"""
        ...

    def add(self, x: X, residual: X) -> None:
        """residual += x"""
        ...

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: tuple[W, W] | None,
        eps: float,
        rope: Rope,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        """RMSNorm of q and k (when `norms`), rope of both; append k and v. q is changed in place.

        Norms of `key` features are taken of each head, those of all heads' features of all heads together.
        What k holds afterwards is not said.

        q is (n, heads * key), k (n, kv_heads * key), v (n, kv_heads * value). Position p lives in
        page `pages[p // page_size]`.
        """
        ...

    def attention(
        self, q: X, heads: int, scale: float, cache: C, layer: int, pages: Ints, start: int
    ) -> X:
        """Causal grouped-query attention over the cache, new tokens included: (n, heads * value).

        Token i sees positions 0 .. start + i. Query head h reads KV head h * kv_heads // heads.
        """
        ...

    def latent_append(
        self,
        q: X,
        heads: int,
        kv: X,
        norm: W,
        eps: float,
        rope: Rope,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        """MLA: rope the tail of every head of q in place; append [RMSNorm(latent), rope(tail)] of kv.

        q is (n, heads * (nope + rope)); kv (n, latent + rope). `rope.offset` is `nope` in q; in kv the
        rotated features follow the latent ones.
        """
        ...

    def latent_attention(
        self,
        q: X,
        heads: int,
        scale: float,
        k_b: W,
        v_b: W,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> X:
        """Absorbed MLA: (n, heads * value).

        Per head: [q_nope @ k_b[h].T, q_rope] against the cached rows, softmax, times the latent part,
        then @ v_b[h].T. k_b is (heads, latent, nope), v_b (heads, value, latent).
        """
        ...

    def route(
        self, x: X, norm: W, eps: float, router: W, bias: W | None, routing: Routing
    ) -> tuple[X, X, X]:
        """RMSNorm, router, choice: (normed (n, hidden), expert ids (n, top_k) int32, weights (n, top_k))."""
        ...

    def moe_add(self, x: X, ids: X, weights: X, gate: W, up: W, down: W, residual: X) -> None:
        """residual += sum over chosen experts of weight * down(silu(gate(x)) * up(x)).

        An id of -1 is no expert, or one that another op set computes.
        """
        ...

    def ffn_add(self, x: X, gate: W, up: W, down: W, residual: X, scaler: W | None = None) -> None:
        """residual += down(silu(gate(x)) * up(x)), times sigmoid(x @ scaler) a token when given.

        x is already normed. `scaler` is qwen2moe's shared-expert gate, a (hidden,) vector.
        """
        ...

    def norm(self, x: X, norm: W, eps: float) -> X:
        """RMSNorm: (n, features)."""
        ...
