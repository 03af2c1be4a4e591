"""Row by row and feature by feature in a split pass: the device's ops, after what the host still owes."""

from __future__ import annotations

from kernels.hybrid.places import Places
from kernels.ops import C
from kernels.recurrent import W, X


class RowOps(Places[X, W, C]):
    """`kernels.rows.RowOps`, passed on to the device."""

    def zeros(self, x: X) -> X:
        return self._device.zeros(x)

    def norm(self, x: X, norm: W, eps: float) -> X:
        self._experts.join()
        return self._device.norm(x, norm, eps)

    def norm_add(self, x: X, norm: W, eps: float, residual: X, scale: W | None = None) -> None:
        self._experts.join()
        self._device.norm_add(x, norm, eps, residual, scale)

    def add(self, x: X, residual: X) -> None:
        self._experts.join()
        self._device.add(x, residual)

    def soft_cap(self, x: X, cap: float) -> None:
        self._experts.join()
        self._device.soft_cap(x, cap)
