"""GGUF files byte by byte, valid or not, without the help of a library."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

U8, I8, U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 0, 1, 4, 5, 6, 7, 8, 9, 10, 12
_CODES = {U8: "B", I8: "b", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", F64: "d"}


def text(value: str | bytes) -> bytes:
    """A string of GGUF: its length, then its bytes."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind: int, item: Any) -> bytes:
    """A value without its type."""
    return text(item) if kind == STRING else struct.pack("<" + _CODES[kind], item)


def array(kind: int, items: Sequence[Any]) -> bytes:
    """An array with its element type and count."""
    return struct.pack("<IQ", kind, len(items)) + b"".join(value(kind, item) for item in items)


def entry(key: str | bytes, kind: int, item: Any) -> bytes:
    """A key with its value; arrays are (element type, items)."""
    data = array(*item) if kind == ARRAY else value(kind, item)
    return text(key) + struct.pack("<I", kind) + data


def tensor(name: str | bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """A row of the tensor table; `dims` as in the file, innermost first."""
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


@dataclass
class File:
    """A file in pieces; every piece can be made wrong."""

    entries: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    counts: tuple[int, int] | None = None
    alignment: int = 32

    def head(self) -> bytes:
        tensors, keys = self.counts or (len(self.tensors), len(self.entries))
        return self.magic + struct.pack("<IQQ", self.version, tensors, keys)

    def build(self) -> bytes:
        header = self.head() + b"".join(self.entries) + b"".join(self.tensors)
        return header + bytes(-len(header) % self.alignment) + self.data


def entries(items: Mapping[str, str | int | float]) -> list[bytes]:
    """Keys with strings, unsigned integers and floats."""
    kinds = {str: STRING, int: U32, float: F32, bool: BOOL}
    return [entry(key, kinds[type(item)], item) for key, item in items.items()]


def small() -> File:
    """A valid file with one of everything: 3 tensors, strings, arrays, numbers."""
    made = entries({"general.architecture": "toy", "toy.block_count": 2, "toy.scale": 0.5})
    made += [
        entry("toy.flag", BOOL, 1),
        entry("toy.wide", U64, 1 << 40),
        entry("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "bc", "", "äö"])),
        entry("tokenizer.ggml.token_type", ARRAY, (I32, [1, 2, 3, -4])),
        entry("toy.flags", ARRAY, (BOOL, [0, 1, 2])),
    ]
    tensors = [
        tensor("vector", [8], 0, 0),
        tensor("matrix", [32, 2], 8, 32),
        tensor("experts", [4, 3, 2], 0, 32 + 96),
    ]
    return File(made, tensors, bytes(range(256))[: 32 + 96 + 96])
