"""The values of GGUF metadata: scalars, and arrays that are decoded only when asked.

The caller has checked that a value lies within the bytes that were read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BOOL, STRING, ARRAY = 7, 8, 9
U64 = struct.Struct("<Q")


class Scalar:
    """A numeric type: its name and how struct and numpy read it (little endian)."""

    def __init__(self, name: str, code: str) -> None:
        self.name = name
        self.struct = struct.Struct("<" + code)
        self.dtype: np.dtype[Any] = np.dtype("<" + code)


SCALARS: dict[int, Scalar] = {
    0: Scalar("u8", "B"),
    1: Scalar("i8", "b"),
    2: Scalar("u16", "H"),
    3: Scalar("i16", "h"),
    4: Scalar("u32", "I"),
    5: Scalar("i32", "i"),
    6: Scalar("f32", "f"),
    7: Scalar("bool", "B"),
    10: Scalar("u64", "Q"),
    11: Scalar("i64", "q"),
    12: Scalar("f64", "d"),
}


class LazyArray:
    """An array of the metadata, decoded when asked. `element` is its GGUF type ("string", "i32")."""

    __slots__ = ("_count", "_data", "_dtype", "_index", "_start", "element")

    def __init__(self, data: bytes, element: int, count: int, start: int) -> None:
        scalar = SCALARS.get(element)
        self.element = scalar.name if scalar else "string"
        self._dtype = scalar.dtype if scalar else None
        self._data = data
        self._count = count
        self._start = start
        self._index: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"LazyArray({self.element}, {self._count})"

    def numpy(self) -> npt.NDArray[Any]:
        """A read-only view of a numeric array; raises `TypeError` for strings."""
        if self._dtype is None:
            raise TypeError("an array of strings has no numeric view")
        view = np.frombuffer(self._data, self._dtype, self._count, self._start)
        return view.astype(np.bool_) if self.element == "bool" else view

    def raw(self) -> Iterator[bytes]:
        """The strings' bytes, one after another; raises `TypeError` for numbers."""
        if self._dtype is not None:
            raise TypeError(f"an array of {self.element} holds no strings")
        data, position, unpack = self._data, self._start, U64.unpack_from
        for _ in range(self._count):
            start = position + 8
            position = start + unpack(data, position)[0]
            yield data[start:position]

    def strings(self) -> Iterator[str]:
        """The strings, one after another; bytes that are not UTF-8 become U+FFFD."""
        for item in self.raw():
            yield item.decode("utf-8", "replace")

    def __getitem__(self, number: int) -> Any:
        """One element; the first use on strings walks the array once."""
        if not -self._count <= number < self._count:
            raise IndexError(number)
        if self._dtype is not None:
            return self.numpy()[number].item()
        if self._index is None:
            self._index = np.fromiter(self._starts(), np.int64, self._count)
        start = int(self._index[number])
        length: int = U64.unpack_from(self._data, start)[0]
        return self._data[start + 8 : start + 8 + length].decode("utf-8", "replace")

    def _starts(self) -> Iterator[int]:
        data, position, unpack = self._data, self._start, U64.unpack_from
        for _ in range(self._count):
            yield position
            position += 8 + unpack(data, position)[0]


Value = int | float | bool | str | LazyArray
