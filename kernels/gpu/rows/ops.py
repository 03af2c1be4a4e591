"""The ops of `GpuOps` that go row by row or feature by feature."""

from __future__ import annotations

import torch
from torch import Tensor as X

from kernels.gpu import elementwise
from kernels.gpu.attention_ops import Weight, as_vector
from kernels.gpu.quant.gemv import GEMV_MAX_ROWS
from kernels.gpu.quant.q8 import KnownQ8
from kernels.gpu.rows import kernels


class RowOps:
    """`kernels.rows.RowOps` in Triton."""

    known: KnownQ8

    def zeros(self, x: X) -> X:
        return torch.zeros_like(x)

    def norm(self, x: X, norm: Weight, eps: float) -> X:
        return self.norm_into(torch.empty(x.shape, device=x.device), x, norm, eps)

    def norm_into(self, out: X, x: X, norm: Weight, eps: float) -> X:
        """The same, written to `out`; of few rows in 8 bits too."""
        few = len(x) <= GEMV_MAX_ROWS
        elementwise.rms_norm(x, as_vector(norm), eps, out, q8=self.known.make(out) if few else None)
        return out

    def norm_add(
        self, x: X, norm: Weight, eps: float, residual: X, scale: Weight | None = None
    ) -> None:
        factor = None if scale is None else as_vector(scale)
        kernels.norm_add(x, as_vector(norm), eps, residual, factor)

    def add(self, x: X, residual: X) -> None:
        residual += x

    def soft_cap(self, x: X, cap: float) -> None:
        kernels.soft_cap(x, cap)
