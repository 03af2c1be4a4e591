"""Row by row and feature by feature, in float32 torch."""

from __future__ import annotations

import torch
from torch import Tensor as X

from kernels.reference_recurrent import Weight, rms_norm


class ReferenceRowOps:
    """`kernels.rows.RowOps` in float32 torch."""

    def zeros(self, x: X) -> X:
        return torch.zeros_like(x)

    def norm(self, x: X, norm: Weight, eps: float) -> X:
        return rms_norm(x, norm.float(), eps)

    def norm_add(
        self, x: X, norm: Weight, eps: float, residual: X, scale: Weight | None = None
    ) -> None:
        residual += rms_norm(x, norm.float(), eps)
        if scale is not None:
            residual *= scale.float()

    def add(self, x: X, residual: X) -> None:
        residual += x

    def soft_cap(self, x: X, cap: float) -> None:
        x.copy_(cap * torch.tanh(x / cap))
