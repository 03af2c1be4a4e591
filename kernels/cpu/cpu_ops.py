"""`CpuOps`: the op set on the CPU. Checks shapes, then makes one native call an op; the work is in src/.

One thread at a time uses a CpuOps; several may live in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.cpu.attention_ops import AttentionOps
from kernels.cpu.buffers import (
    Array,
    Cache,
    Weight,
    address,
    expect,
    expect_matrix,
    expect_table,
    has_tiles,
    matrix,
    rows_of,
    vector,
    vector_pointer,
)
from kernels.cpu.feed_forward_ops import FeedForwardOps
from kernels.cpu.op_table import MAX_WEIGHTS
from kernels.cpu.recurrent_ops import RecurrentOps
from kernels.cpu.row_ops import RowOps
from kernels.host_bytes import joined, split
from kernels.ops import Bytes, CacheShape, Floats, Ints, Tensor


class CpuOps(AttentionOps, FeedForwardOps, RecurrentOps, RowOps):
    """`kernels.ops.Ops` in C++ with its own threads; an idle one uses no CPU.

    `threads` None takes the physical cores that this process may use. `isa` None takes what
    KTCHAT_ISA names, else the best that this CPU has. `pin` ties every thread but the caller's to a
    core, unless there are more threads than cores. Raises `kernels.cpu.NativeError`, or
    `kernels.cpu.build.BuildError` without a compiler.
    """

    name = "cpu"

    def matrix(self, tensor: Tensor) -> Weight:
        return matrix(self._alive(), tensor)

    def table(self, tensor: Tensor) -> Weight:
        return matrix(self._alive(), tensor, repack=False)

    def repacks(self, tensor: Tensor) -> bool:
        return has_tiles(tensor)

    def vector(self, tensor: Tensor) -> Weight:
        return vector(tensor)

    def kv_cache(self, shape: CacheShape) -> Cache:
        return Cache(shape)

    def copy_page(self, cache: Cache, source: int, target: int) -> None:
        cache.keys[:, target] = cache.keys[:, source]
        cache.values[:, target] = cache.values[:, source]

    def read_page(self, cache: Cache, page: int) -> Bytes:
        return joined([cache.keys[:, page], cache.values[:, page]])

    def write_page(self, cache: Cache, page: int, data: Bytes) -> None:
        split([cache.keys[:, page], cache.values[:, page]], data)

    def set_hidden(self, rows: Floats) -> Array:
        self._chosen = []
        buffer = self._buffer(*rows.shape)
        buffer[...] = rows
        return buffer

    def last_row(self, x: Array) -> Array:
        return x[-1:]

    def from_numpy(self, x: Floats) -> Array:
        return x

    def to_numpy(self, x: Array) -> Floats:
        return x

    def embed(self, table: Weight, tokens: Ints, factor: float = 1.0) -> Array:
        self._chosen = []
        tokens = np.ascontiguousarray(tokens, dtype=np.int32)
        expect_table(table)
        n = tokens.size
        if tokens.shape != (n,) or not n:
            raise ValueError(f"wanted tokens (n,), got {tokens.shape}")
        ids = self._buffer(1, n, np.int32)
        ids[0] = tokens
        out = self._buffer(n, table.cols)
        self._call("kt_embed", table.pointer, address(ids), n, factor, address(out))
        return out

    def norm_linear(
        self,
        x: Array,
        norm: Weight | None,
        eps: float,
        weights: Sequence[Weight],
        biases: Sequence[Weight | None] | None = None,
    ) -> list[Array]:
        if len(weights) > MAX_WEIGHTS:
            return self._norm_linear_in_parts(x, norm, eps, weights, biases)
        cols = x.shape[-1]
        n = rows_of(x, cols)
        if not weights or (biases is not None and len(biases) != len(weights)):
            raise ValueError("wanted a bias, or None, for each of at least one weight")
        outs: list[Array] = []
        products: list[int | None] = []
        for i, weight in enumerate(weights):
            rows = expect_matrix(weight, cols)
            out = self._buffer(n, rows)
            outs.append(out)
            bias = None if biases is None else vector_pointer(biases[i], rows)
            products += (weight.pointer, address(out), bias)
        products += (None,) * (3 * MAX_WEIGHTS - len(products))
        self._call(
            "kt_norm_linear",
            address(x),
            n,
            cols,
            vector_pointer(norm, cols),
            eps,
            len(weights),
            *products,
        )
        return outs

    def _norm_linear_in_parts(
        self,
        x: Array,
        norm: Weight | None,
        eps: float,
        weights: Sequence[Weight],
        biases: Sequence[Weight | None] | None,
    ) -> list[Array]:
        normed = x if norm is None else self.norm(x, norm, eps)
        outs: list[Array] = []
        for i in range(0, len(weights), MAX_WEIGHTS):
            part = slice(i, i + MAX_WEIGHTS)
            outs += self.norm_linear(
                normed, None, eps, weights[part], None if biases is None else biases[part]
            )
        return outs

    def linear_add(
        self, x: Array, weight: Weight, residual: Array, bias: Weight | None = None
    ) -> None:
        n, rows = rows_of(x, weight.cols), expect_matrix(weight, weight.cols)
        expect(residual, n, rows)
        added = vector_pointer(bias, rows)
        self._call("kt_linear_add", address(x), n, weight.pointer, address(residual), added)
