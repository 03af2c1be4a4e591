"""Rows of random bits in the types whose quantisers take a minute to start, IQ1 and IQ2, or are not here:
ik_llama.cpp's.

Any bits are a valid block of these types, so random ones reach every entry of their tables. Only the float scales
are chosen: they give a block, or a row, the size of the values it stands for.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from kernels import ggml, ik_types
from kernels.ops import Bytes, Floats, Tensor
from kernels.quants import IK_TYPES, QuantType

RANDOM_TYPES = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"}) | IK_TYPES


def random_rows(values: Floats, kind: QuantType) -> Bytes:
    """Rows of `kind` as large as those of `values`, (rows, cols): (rows, bytes of a row), uint8."""
    rows, cols = values.shape
    rng = np.random.default_rng(zlib.crc32(kind.name.encode()))
    out = rng.integers(0, 256, (rows, kind.row_bytes(cols)), dtype=np.uint8)
    _set_scales(out, np.ones((rows, _scales(kind, cols))), kind)
    dequantise = ik_types.dequantise if kind.name in IK_TYPES else ggml.dequantise
    plain = dequantise(Tensor("rows", kind, (rows, cols), out.reshape(-1)))
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
    if (
        kind.name == "IQ1_M"
    ):  # a nibble of the scale at the top of each of a block's last four words
        words = rows.reshape(len(rows), -1, kind.bytes)[:, :, 48:]
        nibbles = stored.view(np.uint16)[..., None] >> np.array([0, 4, 8, 12], np.uint16) & 15
        words[..., 1::2] = (words[..., 1::2] & 15) | (nibbles << 4).astype(np.uint8)
        return
    data = np.ascontiguousarray(stored).view(np.uint8).reshape(*stored.shape, -1)
    if kind.prefix:
        rows[:, : kind.prefix] = data[:, 0]
    else:
        rows.reshape(len(rows), -1, kind.bytes)[:, :, :2] = data
