"""Ops that take a buffer row by row or feature by feature, without products."""

from __future__ import annotations

from typing import Protocol, TypeVar

from kernels.recurrent import X

V = TypeVar("V", contravariant=True)
"""Weights made ready by `vector`."""


class RowOps(Protocol[X, V]):
    """The part of an op set between the products. Buffers are (n, features)."""

    def zeros(self, x: X) -> X:
        """A buffer of zeros like x: where ops that add to a residual leave their sum alone."""
        ...

    def norm(self, x: X, norm: V, eps: float) -> X:
        """RMSNorm."""
        ...

    def norm_add(self, x: X, norm: V, eps: float, residual: X, scale: V | None = None) -> None:
        """residual += RMSNorm(x); then residual *= scale, a vector of one number, when given."""
        ...

    def add(self, x: X, residual: X) -> None:
        """residual += x"""
        ...

    def soft_cap(self, x: X, cap: float) -> None:
        """x = cap * tanh(x / cap), element by element."""
        ...
