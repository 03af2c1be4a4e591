"""Dequantisation: ggml's own, from the libraries that llama-cpp-python ships; where it is not installed gguf-py's; ours
for types of ik_llama.cpp.

Importing this module loads nothing; llama_cpp itself is never imported.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

from kernels import ik_types
from kernels.ops import Bytes, Floats, Tensor
from kernels.quants import IK_TYPES, QuantType


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    )


def library_dir() -> Path:
    """The folder of libggml-base.so and libllama.so. Raises `ImportError` when there is none."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ImportError("llama-cpp-python is not installed")
    return Path(spec.origin).parent / "lib"


@cache
def base_library() -> ctypes.CDLL:
    """libggml-base, with the functions used here typed."""
    library = ctypes.CDLL(str(library_dir() / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    return library


@cache
def _traits(kind: QuantType) -> _TypeTraits:
    traits: _TypeTraits = base_library().ggml_get_type_traits(kind.id).contents
    if (traits.blck_size, traits.type_size) != (kind.block, kind.bytes):
        raise RuntimeError(f"ggml and kernels.quants disagree about {kind.name}")
    return traits


def dequantise(tensor: Tensor) -> Floats:
    """All elements of a tensor in float32, in its shape."""
    if tensor.type.name == "F32":
        return np.frombuffer(tensor.data, dtype=np.float32).reshape(tensor.shape)
    data = np.ascontiguousarray(tensor.data)
    out = np.empty(tensor.shape, dtype=np.float32)
    if data.nbytes != tensor.type.row_bytes(tensor.cols) * (out.size // tensor.cols):
        raise ValueError(f"{tensor.name} has {data.nbytes} bytes, which is not its shape")
    if tensor.type.name in IK_TYPES:
        return ik_types.dequantise(tensor)
    if importlib.util.find_spec("llama_cpp") is None:
        return _by_gguf(tensor, data)
    _traits(tensor.type).to_float(data.ctypes.data, out.ctypes.data, out.size)
    return out


def _by_gguf(tensor: Tensor, data: Bytes) -> Floats:
    """The same numbers from gguf-py, which is slower. Raises `ImportError` for the few types that it lacks."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    rows = data.reshape(-1, tensor.type.row_bytes(tensor.cols))
    try:
        found = dequantize(rows, GGMLQuantizationType[tensor.type.name])
    except (KeyError, NotImplementedError) as error:
        raise ImportError(f"{tensor.type.name} needs llama-cpp-python") from error
    return np.ascontiguousarray(found, dtype=np.float32).reshape(tensor.shape)
