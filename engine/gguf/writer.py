"""A GGUF file written as a stream: header first, then tensor after tensor.

Version 3, little endian (docs/gguf.md of ggml). A file appears under its name only when it is complete.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kernels.ops import Bytes
from kernels.quants import QuantType

ALIGNMENT = 32
_VERSION = 3
_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5

Value = bool | int | float | str | Sequence[str] | Sequence[int]
"""Integers are stored as u32, in arrays as i32; floats as f32."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written. `shape` is outermost first."""

    name: str
    type: QuantType
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of all matrices together; 1 for a vector."""
        count = 1
        for size in self.shape[:-1]:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.type.row_bytes(self.shape[-1])


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value],
    tensors: Sequence[TensorPlan],
    data: Callable[[TensorPlan], Iterable[Bytes]],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a file of `tensors`; `data` gives the bytes of each in pieces, in order.

    `report` is called with bytes done and bytes in all. Raises `OSError` (disk full); what was
    written until then is removed, also when `data` or `report` raises or the write is interrupted.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    total, done = sum(tensor.nbytes for tensor in tensors), 0
    try:
        with part.open("wb", buffering=0) as file:
            _write_all(file, _header(metadata, tensors))
            for tensor in tensors:
                before = done
                for piece in data(tensor):
                    _write_all(file, piece.reshape(-1).data)
                    done += piece.nbytes
                    report(done, total)
                assert done - before == tensor.nbytes, tensor.name
                _write_all(file, bytes(-tensor.nbytes % ALIGNMENT))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _header(metadata: Mapping[str, Value], tensors: Sequence[TensorPlan]) -> bytes:
    out = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    out += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]
        out.append(_string(tensor.name) + struct.pack("<I", len(dims)))
        out.append(struct.pack(f"<{len(dims)}QIQ", *dims, tensor.type.id, offset))
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    header = b"".join(out)
    return header + bytes(-len(header) % ALIGNMENT)


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if all(isinstance(item, str) for item in value):
        items = b"".join(_string(str(item)) for item in value)
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + items
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _I32, len(value), *value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
