"""Tensors by what they are for, and the bytes of each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# fmt: off
Group = Literal[
    "embedding", "attention", "router", "shared", "experts", "dense", "norms", "output",
    "other", "unused",
]
# fmt: on
"""What a tensor is for. `other` is what only foreign architectures have, `unused` nobody reads."""


@dataclass(frozen=True, slots=True)
class GroupSize:
    """One group of tensors."""

    bytes: int = 0
    parameters: int = 0
    resident: int = 0
    """Bytes in memory once loaded for the CPU kernels; 0 where only the file is known."""
    device: int = 0
    """Bytes once loaded on a GPU; 0 where only the file is known."""

    def __add__(self, other: GroupSize) -> GroupSize:
        return GroupSize(
            self.bytes + other.bytes,
            self.parameters + other.parameters,
            self.resident + other.resident,
            self.device + other.device,
        )
