"""Row by row and feature by feature on the CPU: shape checks, and one native call an op."""

from __future__ import annotations

from kernels.cpu.buffers import Array, Weight, address, expect, rows_of, vector_pointer
from kernels.cpu.context import NativeContext


class RowOps(NativeContext):
    """`kernels.rows.RowOps`."""

    def zeros(self, x: Array) -> Array:
        n, cols = x.shape
        out = self._buffer(n, cols)
        self._call("kt_zeros", address(out), n * cols)
        return out

    def norm(self, x: Array, norm: Weight, eps: float) -> Array:
        n = rows_of(x, norm.cols)
        weight = vector_pointer(norm, norm.cols)
        out = self._buffer(n, norm.cols)
        self._call("kt_norm", address(x), n, norm.cols, weight, eps, address(out))
        return out

    def norm_add(
        self, x: Array, norm: Weight, eps: float, residual: Array, scale: Weight | None = None
    ) -> None:
        n, cols = rows_of(x, norm.cols), norm.cols
        expect(residual, n, cols)
        weight, factor = vector_pointer(norm, cols), vector_pointer(scale, 1)
        self._call("kt_norm_add", address(x), n, cols, weight, eps, factor, address(residual))

    def add(self, x: Array, residual: Array) -> None:
        residual += x

    def soft_cap(self, x: Array, cap: float) -> None:
        rows_of(x, x.shape[-1])
        self._call("kt_soft_cap", address(x), x.size, cap)
