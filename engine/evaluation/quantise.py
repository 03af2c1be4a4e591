"""float32 matrices into GGUF types, by ggml's own quantisers.

Used for synthetic weights and tests; a person's model is never quantised again.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from engine.common.packages import require_llama_cpp
from kernels import ggml
from kernels.ops import Bytes, Floats
from kernels.quants import QuantType


@cache
def _library() -> ctypes.CDLL:
    require_llama_cpp("Quantising")
    library = ggml.base_library()
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    return library


def quantise(values: Floats, kind: QuantType) -> Bytes:
    """The rows of `values`, (…, cols), as blocks of `kind`: uint8, one dimension.

    Types that need an importance matrix get the mean square of each column.
    """
    cols = values.shape[-1]
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, cols)
    out = np.zeros(len(rows) * kind.row_bytes(cols), dtype=np.uint8)
    importance = None
    if _library().ggml_quantize_requires_imatrix(kind.id):
        importance = np.square(rows).mean(axis=0, dtype=np.float32)
    written = _library().ggml_quantize_chunk(
        kind.id,
        rows.ctypes.data,
        out.ctypes.data,
        0,
        len(rows),
        cols,
        None if importance is None else importance.ctypes.data,
    )
    assert written == out.nbytes, (kind.name, written, out.nbytes)
    return out
