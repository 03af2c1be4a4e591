"""Attention over the paged KV cache on the CPU: shape checks, and one native call an op."""

from __future__ import annotations

from kernels.cpu.buffers import (
    Array,
    Cache,
    Weight,
    address,
    expect,
    expect_matrices,
    rows_of,
    vector_pointer,
)
from kernels.cpu.context import NativeContext
from kernels.ops import HeadNorms, Ints, Rope


class AttentionOps(NativeContext):
    """The ops of `kernels.ops.Ops` that read or write a KV cache."""

    def rope_append(
        self,
        q: Array,
        k: Array,
        v: Array,
        norms: HeadNorms[Weight] | None,
        eps: float,
        rope: Rope,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        shape = cache.shape
        n, heads = q.shape[0], q.shape[-1] // shape.key
        expect(q, n, heads * shape.key)
        expect(k, n, shape.heads * shape.key)
        expect(v, n, shape.heads * shape.value)
        if not n or not shape.value or rope.offset + 2 * len(rope.frequencies) > shape.key:
            raise ValueError(f"{n} tokens with a rope of offset {rope.offset} for {shape}")
        q_norm, k_norm, values = (None, None, False) if norms is None else norms
        together = q_norm is not None and q_norm.cols == heads * shape.key != shape.key
        self._call(
            "kt_rope_append",
            address(q),
            heads,
            address(k),
            address(v),
            vector_pointer(q_norm, shape.key * (heads if together else 1)),
            vector_pointer(k_norm, shape.key * (shape.heads if together else 1)),
            together,
            values,
            eps,
            self._rope(rope),
            *self._kv_slots(cache, layer, pages, start, n),
        )

    def attention(
        self,
        q: Array,
        heads: int,
        scale: float,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
        window: int = 0,
        sinks: Weight | None = None,
    ) -> Array:
        shape = cache.shape
        n = rows_of(q, heads * shape.key)
        if not shape.value or heads % shape.heads:
            raise ValueError(f"{heads} heads cannot attend to {shape}")
        out = self._buffer(n, heads * shape.value)
        self._call(
            "kt_attention",
            address(q),
            heads,
            scale,
            *self._kv_slots(cache, layer, pages, start, n),
            window,
            vector_pointer(sinks, heads),
            address(out),
        )
        return out

    def latent_append(
        self,
        q: Array,
        heads: int,
        kv: Array,
        norm: Weight,
        eps: float,
        rope: Rope,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> None:
        shape, rotated = cache.shape, 2 * len(rope.frequencies)
        n = rows_of(kv, shape.key)
        expect(q, n, heads * (rope.offset + rotated))
        if shape.heads != 1 or heads < 1 or rotated >= shape.key:
            raise ValueError(f"{shape} holds no latent rows with {rotated} rotated features")
        self._call(
            "kt_latent_append",
            address(q),
            heads,
            address(kv),
            vector_pointer(norm, shape.key - rotated),
            eps,
            self._rope(rope),
            *self._kv_slots(cache, layer, pages, start, n),
        )

    def latent_attention(
        self,
        q: Array,
        heads: int,
        scale: float,
        k_b: Weight,
        v_b: Weight,
        cache: Cache,
        layer: int,
        pages: Ints,
        start: int,
    ) -> Array:
        shape, latent, nope = cache.shape, k_b.rows, k_b.cols
        n = rows_of(q, heads * (nope + shape.key - latent))
        expect_matrices(k_b, heads, latent, nope)
        expect_matrices(v_b, heads, v_b.rows, latent)
        if shape.heads != 1 or latent > shape.key:
            raise ValueError(f"{shape} holds no latent rows of {latent} features")
        out = self._buffer(n, heads * v_b.rows)
        self._call(
            "kt_latent_attention",
            address(q),
            heads,
            scale,
            k_b.pointer,
            v_b.pointer,
            *self._kv_slots(cache, layer, pages, start, n),
            address(out),
        )
        return out
