"""The op set on the CPU: C++ kernels behind a C ABI, called through ctypes.

`CpuOps` is imported when it is first used, so that the build needs no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.cpu.cpu_ops import CpuOps
    from kernels.cpu.native import NativeError

__all__ = ["CpuOps", "NativeError"]


def __getattr__(name: str) -> Any:
    if name == "CpuOps":
        from kernels.cpu.cpu_ops import CpuOps

        return CpuOps
    if name == "NativeError":
        from kernels.cpu.native import NativeError

        return NativeError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
