"""The types of ik_llama.cpp, dequantised in numpy: what their bits mean, and what our kernels are proved against.

A block has 256 columns (Q6_0: 32) in groups of 16 or 32. A column's code is an index into a table of int8; a
group has a whole scale, and a bit that says whether it takes the table's values moved by a little. The float
scale is the block's or, in types whose names end in KS, KSS or KL, the row's, and then lies ahead of its blocks.

Layouts and tables are those of ggml-common.h of ik_llama.cpp (Kawrakow, 2024 and 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.parameters import Bytes, Floats, Tensor

Whole = npt.NDArray[np.int32]


def _moved(move: int, *values: int) -> Whole:
    """A table, and behind it the same values moved."""
    table = np.array(values, dtype=np.int32)
    return np.stack([table, table + move])


# fmt: off
VALUES2 = _moved(5, -31, -13, 1, 17)
VALUES3 = _moved(4, -63, -40, -23, -10, 1, 13, 28, 47)
VALUES4 = _moved(4, -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
VALUES5 = _moved(2, -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6,
                 -1, 5, 11, 17, 23, 29, 36, 43, 51, 59, 68, 77, 87, 97, 109, 121)
PAIRS = np.array([
    -63, -23, -63, 13, -40, -63, -40, -10, -40, 13, -40, 47, -23, -40, -23, -23, -23, 1, -23, 13, -23, 28,
    -10, -63, -10, 1, -10, 13, -10, 47, 1, -23, 1, -10, 1, 1, 1, 13, 1, 28, 13, -40, 13, -23, 13, -10, 13, 1,
    13, 13, 28, -63, 28, -23, 28, 1, 28, 28, 28, 47, 47, -23, 47, 13,
], dtype=np.int32).reshape(32, 2)
# fmt: on
"""IQ2_KL: what an index of 5 bits stands for in two columns."""


def _values6() -> Floats:
    """IQ6_K's cubic polynomial in float32, each step rounded once (fused), and the same moved by 1."""
    q = np.arange(64, dtype=np.float64)
    highest, *others = (float(np.float32(x)) for x in (0.0011972, -0.11218, 6.2568, -127.0))
    table = np.full(64, highest, dtype=np.float32)
    for coefficient in others:
        table = (q * table + coefficient).astype(np.float32)
    return np.stack([table, table + np.float32(1.0)])


VALUES6 = _values6()


def dequantise(tensor: Tensor, rounded: bool = False) -> Floats:
    """All elements of a tensor of one of these types in float32, in its shape.

    `rounded`: IQ6_K's values are whole numbers, as its quantiser and all products, ik_llama.cpp's and ours, take
    them; the float32 rows of ik_llama.cpp on a CPU have the polynomial they were rounded from.
    """
    kind = tensor.type
    decode, group = _DECODERS[kind.name]
    rows = np.ascontiguousarray(tensor.data).reshape(-1, kind.row_bytes(tensor.cols))
    blocks = rows[:, kind.prefix :].reshape(-1, kind.bytes)
    if kind.prefix:
        stored: Any = np.float16 if kind.prefix == 2 else np.float32
        scales = np.ascontiguousarray(rows[:, : kind.prefix]).view(stored).astype(np.float32)
        d = scales.repeat(kind.row_blocks(tensor.cols), axis=0)
    else:
        d = _words(blocks[:, :2]).view(np.float16).astype(np.float32)
    whole, values = decode(blocks)
    values = np.rint(values) if rounded else values
    # In this order: the product of both scales is rounded first.
    scaled = (d * whole.astype(np.float32))[:, :, None]
    result: Floats = scaled * values.reshape(len(blocks), -1, group).astype(np.float32)
    return result.reshape(tensor.shape)


def _words(data: Bytes) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(data).view(np.uint16)


def _numbers(data: Bytes, bits: int, run: int) -> Whole:
    """(blocks, n) numbers of `bits` bits: of every `run` bytes the lowest bits of each come first."""
    parts = data.astype(np.int32).reshape(len(data), -1, 1, run)
    shifts = np.arange(0, 8, bits, dtype=np.int32)[:, None]
    return (parts >> shifts & (1 << bits) - 1).reshape(len(data), -1)


def _bits(data: Bytes) -> Whole:
    """(blocks, 8 n) bits of n bytes, the lowest first."""
    return _numbers(data, 1, 1)


def _look_up(table: Any, moved: Whole, codes: Whole) -> Any:
    """A table's values of (blocks, columns), `moved` or not by group."""
    return table[moved.repeat(codes.shape[1] // moved.shape[1], axis=1), codes]


def _q6_0(b: Bytes) -> tuple[Whole, Whole]:
    high = _numbers(b[:, 2:10], 2, 8).reshape(-1, 4, 8)[:, [0, 2, 1, 3]].reshape(-1, 32)
    return np.ones((len(b), 1), np.int32), _numbers(b[:, 10:], 4, 16) + 16 * high - 32


def _iq2_k(b: Bytes) -> tuple[Whole, Whole]:
    values = _look_up(VALUES2, _bits(b[:, 2:4]), _numbers(b[:, 12:], 2, 32))
    return _numbers(b[:, 4:12], 4, 1) - 8, values


def _iq3_k(b: Bytes) -> tuple[Whole, Whole]:
    codes = _numbers(b[:, 14:78], 2, 32) + 4 * _numbers(b[:, 78:], 1, 32)
    scales = (2 * _numbers(b[:, 6:14], 4, 1) + 1) * (1 - 2 * _bits(b[:, 4:6]))
    return scales, _look_up(VALUES3, _bits(b[:, 2:4]), codes)


def _scales6(b: Bytes) -> Whole:
    """IQ4_K's and IQ5_K's sixteen scales of 6 bits."""
    return _numbers(b[:, 8:16], 4, 1) + 16 * _numbers(b[:, 4:8], 2, 1) - 32


def _iq4_k(b: Bytes) -> tuple[Whole, Whole]:
    return _scales6(b), _look_up(VALUES4, _bits(b[:, 2:4]), _numbers(b[:, 16:], 4, 16))


def _iq5_k(b: Bytes) -> tuple[Whole, Whole]:
    codes = _numbers(b[:, 16:144], 4, 32) + 16 * _numbers(b[:, 144:], 1, 32)
    return _scales6(b), _look_up(VALUES5, _bits(b[:, 2:4]), codes)


def _iq6_k(b: Bytes) -> tuple[Whole, Floats]:
    codes = _numbers(b[:, 20:148], 4, 32) + 16 * _numbers(b[:, 148:], 2, 32)
    scales = b[:, 4:20].view(np.int8).astype(np.int32)
    return scales, _look_up(VALUES6, _bits(b[:, 2:4]), codes)


def _iq2_ks(b: Bytes) -> tuple[Whole, Whole]:
    scales = _numbers(b[:, 2:6], 4, 1) + 16 * _bits(b[:, 1:2]) - 16
    return scales, _look_up(VALUES2, _bits(b[:, :1]), _numbers(b[:, 6:], 2, 32))


def _iq3_ks(b: Bytes) -> tuple[Whole, Whole]:
    codes = _numbers(b[:, 6:70], 2, 32) + 4 * _numbers(b[:, 70:], 1, 32)
    scales = _numbers(b[:, 2:6], 4, 4) + 16 * _bits(b[:, :1]) - 16
    return scales, _look_up(VALUES3, _bits(b[:, 1:2]), codes)


def _iq4_ks(b: Bytes) -> tuple[Whole, Whole]:
    scales = b[:, :8].astype(np.int32)
    return (scales & 254) - 127, _look_up(VALUES4, scales & 1, _numbers(b[:, 8:], 4, 16))


def _iq5_ks(b: Bytes) -> tuple[Whole, Whole]:
    scales = b[:, :8].astype(np.int32)
    codes = _numbers(b[:, 8:136], 4, 32) + 16 * _numbers(b[:, 136:], 1, 32)
    return (scales & 254) - 127, _look_up(VALUES5, scales & 1, codes)


def _iq4_kss(b: Bytes) -> tuple[Whole, Whole]:
    """The lowest bits of eight words are a scale; the others four codes, XORed with themselves moved by a bit."""
    words = _words(b)
    bits = (words & 1).astype(np.int32).reshape(len(b), 8, 8)
    scales = (bits << np.arange(8, dtype=np.int32)).sum(axis=-1, dtype=np.int32)
    plain = words & 0xFFFE
    codes = _numbers((plain ^ plain >> 1).view(np.uint8), 4, 16)
    return (scales & 254) - 127, _look_up(VALUES4, scales & 1, codes)


def _iq2_kl(b: Bytes) -> tuple[Whole, Whole]:
    codes = _numbers(b[:, 6:70], 4, 16) + 16 * _numbers(b[:, 70:], 1, 16)
    scales = _numbers(b[:, 2:6], 4, 4) + 16 * _numbers(b[:, :2], 2, 1) - 32
    return scales, PAIRS[codes].reshape(len(b), -1)


_POWERS = np.multiply.accumulate(np.full(8, 0xCBAC1FED, np.uint32), dtype=np.uint32)


def _trellis(starts: Any, columns: int) -> Whole:
    """Values of groups of columns: a multiplicative generator's numbers after `starts`, the sum of four times
    six of their bits less its mean (QTIP; Tseng et al., 2024)."""
    numbers = starts.astype(np.uint32)[..., None] * _POWERS[:columns] & np.uint32(0x3F3F3F3F)
    sums = np.ascontiguousarray(numbers).view(np.uint8).reshape(*numbers.shape, 4).sum(axis=-1)
    values: Whole = sums.astype(np.int32).reshape(len(starts), -1) - 126
    return values


def _iq1_kt(b: Bytes) -> tuple[Whole, Whole]:
    starts = (
        b[:, 8:40]
        + 256 * _numbers(b[:, 40:], 4, 16)
        + 4096 * _bits(b[:, :8]).reshape(-1, 8, 8)[..., 4:].reshape(-1, 32)
    )
    return VALUES4[0][b[:, :8] & 15], _trellis(starts + 4096, 8)


def _iq2_kt(b: Bytes) -> tuple[Whole, Whole]:
    return VALUES4[0][_numbers(b[:, :4], 4, 4)], _trellis(
        _words(b[:, 4:]).astype(np.int32) + 4096, 8
    )


def _iq3_kt(b: Bytes) -> tuple[Whole, Whole]:
    sizes = np.abs(_trellis(_words(b[:, 4:68]).astype(np.int32) + 4096, 8))
    return _numbers(b[:, :4], 4, 4), sizes * (1 - 2 * _numbers(b[:, 68:], 1, 32))


def _iq4_kt(b: Bytes) -> tuple[Whole, Whole]:
    """A word of each group: seven bits of its scale and one of its starts; three bits of each of eight starts."""
    heads = np.ascontiguousarray(b[:, :32]).view(np.uint32).astype(np.int64)[..., None]
    upper = heads >> np.arange(8, 32, 3) & 7
    low = b[:, 32:96] + 256 * _numbers(b[:, 96:], 4, 32)
    starts = (
        low
        + 4096 * upper.reshape(len(b), 64)
        + (4096 + 32768 * (heads & 1)).repeat(8, axis=1)[..., 0]
    )
    return ((heads[..., 0] & 255) >> 1).astype(np.int32) - 64, _trellis(starts, 4)


_DECODERS: dict[str, tuple[Callable[[Bytes], tuple[Whole, Any]], int]] = {
    "Q6_0": (_q6_0, 32),
    "IQ2_K": (_iq2_k, 16),
    "IQ3_K": (_iq3_k, 16),
    "IQ4_K": (_iq4_k, 16),
    "IQ5_K": (_iq5_k, 16),
    "IQ6_K": (_iq6_k, 16),
    "IQ4_KS": (_iq4_ks, 32),
    "IQ2_KS": (_iq2_ks, 32),
    "IQ4_KSS": (_iq4_kss, 32),
    "IQ5_KS": (_iq5_ks, 32),
    "IQ3_KS": (_iq3_ks, 32),
    "IQ2_KL": (_iq2_kl, 32),
    "IQ1_KT": (_iq1_kt, 32),
    "IQ2_KT": (_iq2_kt, 32),
    "IQ3_KT": (_iq3_kt, 32),
    "IQ4_KT": (_iq4_kt, 32),
}
"""By type: whole scales (blocks, groups), values (blocks, columns), and a group's columns."""
