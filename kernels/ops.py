"""The op set: the few coarse operations that a forward pass is written over.

A forward pass handles `n` new tokens of one sequence, at positions `start .. start + n - 1`. Activations
are float32, row-major, (n, features). What a buffer is belongs to the implementation: a torch tensor in
`kernels.reference` and `kernels.gpu`, a numpy array in `kernels.cpu`. Weights stay in their GGUF type. Ops
whose name ends in `_add` add to `residual` in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from kernels.parameters import (
    ACTIVATIONS,
    Q8_BLOCK,
    Activation,
    Bytes,
    CacheKind,
    CacheShape,
    Floats,
    Gating,
    Ints,
    Rope,
    Routing,
    Tensor,
)
from kernels.recurrent import RecurrentOps, W, X
from kernels.rows import RowOps

__all__ = [
    "ACTIVATIONS",
    "Q8_BLOCK",
    "Activation",
    "Biases",
    "Bytes",
    "C",
    "CacheKind",
    "CacheShape",
    "Floats",
    "Forward",
    "Gating",
    "HeadNorms",
    "Ints",
    "Ops",
    "PassInput",
    "Rope",
    "Routing",
    "Tensor",
]


class HeadNorms(NamedTuple, Generic[W]):
    """Weights of the RMSNorms of queries and keys: of each head, or as long as all heads and of all together."""

    q: W
    k: W
    values: bool = False
    """Values are normed too, without a weight."""


PassInput = Ints | Floats
"""What a pass begins with: tokens (n,), or the hidden state (n, hidden) that the layers before it made."""

C = TypeVar("C")
"""A KV cache."""

Biases = tuple[W, W, W]
"""Of experts' gates, ups and downs: float32 stacks of one row, (experts, 1, features)."""

Forward = Callable[[PassInput, Ints, int], X]
"""forward(pass_input, pages, start) -> the result's buffer"""


class Ops(RecurrentOps[X, W], RowOps[X, W], Protocol[X, W, C]):
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

    def read_page(self, cache: C, page: int) -> Bytes:
        """A page in every layer as bytes on the host, in a layout of the op set's own."""
        ...

    def write_page(self, cache: C, page: int, data: Bytes) -> None:
        """Put back what `read_page` gave of a cache of this shape. Raises `ValueError` for other sizes."""
        ...

    def record(self, forward: Forward[X]) -> Forward[X]:
        """`forward(pass_input, pages, start)` of one token, made quick to repeat, or `forward` itself.

        It begins with `embed` or `set_hidden` of its input, and does the same ops with the same weights and
        cache every time. What it returns is a buffer of its own.
        """
        ...

    def embed(self, table: W, tokens: Ints, factor: float = 1.0) -> X:
        """Rows of the (vocabulary, hidden) table times `factor`: (n, hidden), dequantised to float32."""
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

    def linear_add(self, x: X, weight: W, residual: X, bias: W | None = None) -> None:
        """residual += x @ weight.T, plus the bias"""
        ...

    def rope_append(
        self,
        q: X,
        k: X,
        v: X,
        norms: HeadNorms[W] | None,
        eps: float,
        rope: Rope,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        """RMSNorm of q, k and v (by their `norms`), rope of q and k; append k and v.

        Norms of `key` features are taken of each head, those of all heads' features of all heads together.
        q is changed in place; what k holds afterwards is not said. v may be k, as it was.

        q is (n, heads * key), k (n, kv_heads * key), v (n, kv_heads * value). Position p lives in
        page `pages[p // page_size]`, or in the cache's ring.
        """
        ...

    def attention(
        self,
        q: X,
        heads: int,
        scale: float,
        cache: C,
        layer: int,
        pages: Ints,
        start: int,
        window: int = 0,
        sinks: W | None = None,
    ) -> X:
        """Causal grouped-query attention over the cache, new tokens included: (n, heads * value).

        Token i sees positions 0 .. start + i, or the last `window` of them. Query head h reads KV head
        h * kv_heads // heads. `sinks` (heads,) are one more score a head, which has no value (Xiao et al.,
        2023, arXiv:2309.17453). In a ring of so many positions n + window - 1 must have room.
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
        self,
        x: X,
        norm: W,
        eps: float,
        router: W,
        bias: W | None,
        routing: Routing,
        logit_bias: W | None = None,
        scales: W | None = None,
    ) -> tuple[X, X, X]:
        """RMSNorm, router, choice: (normed (n, hidden), expert ids (n, top_k) int32, weights (n, top_k)).

        `bias` is added to scores for the choice only, `logit_bias` to the logits; `scales` are factors of the
        chosen experts' weights. Each is (experts,).
        """
        ...

    def moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        gate: W,
        up: W,
        down: W,
        residual: X,
        biases: Biases[W] | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        """residual += sum over chosen experts of weight * down(activation of gate(x) and up(x)).

        An id of -1 is no expert, or one that another op set computes.
        """
        ...

    def ffn_add(
        self,
        x: X,
        gate: W,
        up: W,
        down: W,
        residual: X,
        scaler: W | None = None,
        activation: Activation = "swiglu",
    ) -> None:
        """residual += down(activation of gate(x) and up(x)), times sigmoid(x @ scaler) a token when given.

        x is already normed. `scaler` is qwen2moe's shared-expert gate, a (hidden,) vector.
        """
        ...
