"""Rows of random bits in the types of ik_llama.cpp, whose quantisers are not here.

Any bits are a valid block of these types, so random ones reach every entry of their tables. Only the float scales
are chosen: they give a block, or a row, the size of the values it stands for.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from kernels import ik_types
from kernels.ops import Bytes, Floats, Tensor
from kernels.quants import QuantType


def random_rows(values: Floats, kind: QuantType) -> Bytes:
    """Rows of `kind` as large as those of `values`, (rows, cols): (rows, bytes of a row), uint8."""
    rows, cols = values.shape
    rng = np.random.default_rng(zlib.crc32(kind.name.encode()))
    out = rng.integers(0, 256, (rows, kind.row_bytes(cols)), dtype=np.uint8)
    _set_scales(out, np.ones((rows, _scales(kind, cols))), kind)
    plain = ik_types.dequantise(Tensor("rows", kind, (rows, cols), out))
    _set_scales(out, _sizes(values, kind) / _sizes(plain, kind), kind)
    return out


def _scales(kind: QuantType, cols: int) -> int:
    return 1 if kind.prefix else kind.row_blocks(cols)


def _sizes(values: Floats, kind: QuantType) -> Any:
    """The root mean square under each scale: (rows, scales of a row)."""
    rows, cols = values.shape
    parts = values.reshape(rows, _scales(kind, cols), -1)
    return np.sqrt(np.square(parts, dtype=np.float64).mean(axis=-1))


def _set_scales(rows: Bytes, scales: Any, kind: QuantType) -> None:
    stored = scales.astype(np.float32 if kind.prefix == 4 else np.float16)
    data = np.ascontiguousarray(stored).view(np.uint8).reshape(*stored.shape, -1)
    if kind.prefix:
        rows[:, : kind.prefix] = data[:, 0]
    else:
        rows.reshape(len(rows), -1, kind.bytes)[:, :, :2] = data
