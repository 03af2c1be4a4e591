"""The ops of `GpuOps` that go row by row or feature by feature."""

from __future__ import annotations

import torch
from torch import Tensor as X

from kernels.gpu import elementwise
from kernels.gpu.attention_ops import Weight, as_vector
from kernels.gpu.rows import kernels


class RowOps:
    """`kernels.rows.RowOps` in Triton."""

    def zeros(self, x: X) -> X:
        return torch.zeros_like(x)

    def norm(self, x: X, norm: Weight, eps: float) -> X:
        out = torch.empty(x.shape, device=x.device)
        elementwise.rms_norm(x, as_vector(norm), eps, out)
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
