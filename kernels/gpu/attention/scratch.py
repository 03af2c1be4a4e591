"""Buffers for the partial results of splits, which are merged by their log-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor as X

from kernels.gpu.attention.plan import AttentionPlan


@dataclass(frozen=True, slots=True)
class Scratch:
    """Every split's mean value and log2-sum-exp2, by (token, head, split)."""

    parts: X
    sums: X

    @classmethod
    def allocate(cls, plan: AttentionPlan, tokens: int, device: torch.device | str) -> Scratch:
        """Room for `tokens` tokens, to be kept as long as the plan."""
        count = max(plan.parts(tokens), 1)
        return cls(
            torch.empty(count, plan.value, dtype=torch.float32, device=device),
            torch.empty(count, dtype=torch.float32, device=device),
        )
