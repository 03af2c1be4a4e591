"""Products as llama.cpp computes them on the CPU: ggml's own dot product of a row with a token."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from kernels import ggml
from kernels.ops import Floats, Tensor
from kernels.quants import TYPES

_FromFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_Dot = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int,
    ctypes.c_void_p,
    *(ctypes.c_size_t, ctypes.c_void_p) * 2,
    ctypes.c_size_t,
    ctypes.c_int,
)


class _CpuTraits(ctypes.Structure):
    """`struct ggml_type_traits_cpu` of ggml-cpu.h."""

    _fields_ = (
        ("from_float", _FromFloat),
        ("vec_dot", ctypes.CFUNCTYPE(None)),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )


@cache
def _library() -> ctypes.CDLL:
    ggml.base_library()
    library = ctypes.CDLL(str(ggml.library_dir() / "libggml-cpu.so"))
    library.ggml_cpu_init()
    library.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_CpuTraits)
    return library


def ggml_products(x: Floats, weights: Tensor) -> Floats:
    """x (n, cols) times the rows of `weights`: (n, rows), float32."""
    traits = _library().ggml_get_type_traits_cpu
    own = traits(weights.type.id).contents
    dot = _Dot(ctypes.cast(own.vec_dot, ctypes.c_void_p).value)
    kind = TYPES[own.vec_dot_type]
    data = np.ascontiguousarray(weights.data)
    packed = np.empty(kind.row_bytes(weights.cols), np.uint8)
    out = np.empty((len(x), weights.rows), np.float32)
    row_bytes = weights.type.row_bytes(weights.cols)
    for t, row in enumerate(np.ascontiguousarray(x)):
        traits(kind.id).contents.from_float(row.ctypes.data, packed.ctypes.data, weights.cols)
        for r in range(weights.rows):
            at = data.ctypes.data + r * row_bytes
            dot(weights.cols, out[t, r:].ctypes.data, 0, at, 0, packed.ctypes.data, 0, 1)
    return out
