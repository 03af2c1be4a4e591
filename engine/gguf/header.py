"""One GGUF file's header: metadata and tensor table, read within bounds.

GGUF 2 and 3, little endian (docs/gguf.md of ggml). A header may be damaged or hostile: everything
counted is compared with the bytes that are left before it is looped over or allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelFileError
from engine.gguf.foreign_types import refuse_foreign_type
from engine.gguf.values import ARRAY, BOOL, SCALARS, STRING, LazyArray, Value
from kernels.quants import TYPES, QuantType

MAX_HEADER = 64 << 20
"""Bytes of metadata and tensor table; the largest vocabularies known take 20 MiB."""
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_STRINGS = 1 << 21
"""Strings in all arrays of one file; the largest vocabularies known have under a million."""
MAX_STRING = 4 << 20
"""Bytes of one string value, such as a chat template."""
MAX_STRING_TOTAL = 32 << 20
MAX_KEY_NAME = 1024
MAX_TENSOR_NAME = 63
"""Bytes; ggml's GGML_MAX_NAME without its closing zero."""
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32
DOWNLOAD = "Download the file again"

_SMALLEST_KEY = 8 + 1 + 4 + 1
_SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "It is a Git LFS pointer", "Download the file that it stands for"),
    (b"<", "It looks like a web page", "Download the file itself, not its page"),
    (b"PK\x03\x04", "It is a zip or PyTorch file", "Use a GGUF version of the model"),
    (b"lmgg", "It is in the old GGML format", "Use a GGUF version of the model"),
    (b"tjgg", "It is in the old GGJT format", "Use a GGUF version of the model"),
    (b"fmgg", "It is in the old GGMF format", "Use a GGUF version of the model"),
)


def shown(text: str, limit: int = 80) -> str:
    """Text from a file as an error may repeat it: ASCII, without control characters, short."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `shape` is outermost first, `offset` counts from the start of its part."""

    name: str
    type: QuantType
    shape: tuple[int, ...]
    part: int
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Header:
    """What one file says of itself. Tensors are in file order."""

    version: int
    metadata: dict[str, Value]
    tensors: list[TensorInfo]
    spans: dict[str, tuple[int, int]]
    """Where each key begins in the file, name and value, and where it ends."""


class HeaderCutError(Exception):
    """The header is longer than the bytes that were given of it; nothing is wrong with the file."""


def read_header(data: bytes, path: Path, part: int = 0, size: int | None = None) -> Header:
    """The header of the file at `path`, whose first bytes, or all of them, are `data`.

    `size` is that of the whole file where `data` is only its beginning. Raises `ModelFileError` for
    every fault, `UnsupportedModelError` for types that only other programs read, and `HeaderCutError`
    when more of the file is needed to go on.
    """
    reader = _Reader(data, path, len(data) if size is None else size)
    version, tensors, keys = reader.preamble()
    metadata = reader.metadata(keys)
    alignment = reader.alignment(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    return Header(version, metadata, reader.tensors(tensors, alignment, part), reader.spans)


class _Reader:
    """A position in a file's bytes that never passes their end."""

    def __init__(self, data: bytes, path: Path, size: int) -> None:
        self.data = data
        self.path = path
        self.size = size
        self.limit = min(size, MAX_HEADER)
        self.end = min(self.limit, len(data))
        self.position = 0
        self.spans: dict[str, tuple[int, int]] = {}
        self.strings = 0
        self.string_bytes = 0

    def fault(self, why: str, todo: str = DOWNLOAD) -> ModelFileError:
        return ModelFileError(f"{shown(self.path.name)} is damaged", why, todo)

    def need(self, count: int, field: str) -> int:
        """Move over `count` bytes; the position before them."""
        start = self.position
        if start + count > self.end:
            raise self.overrun(field)
        self.position = start + count
        return start

    def overrun(self, field: str) -> ModelFileError:
        if self.end < self.limit:
            raise HeaderCutError
        if self.limit < self.size:
            return self.fault(f"Its header is larger than {MAX_HEADER >> 20} MiB, at {field}")
        return self.fault(f"It ends inside {field}, after {self.size} bytes")

    def u32(self, field: str) -> int:
        return int(_U32.unpack_from(self.data, self.need(4, field))[0])

    def u64(self, field: str) -> int:
        return int(_U64.unpack_from(self.data, self.need(8, field))[0])

    def name(self, limit: int, field: str) -> str:
        """A key or a tensor's name: 1 to `limit` bytes of UTF-8."""
        length = self.u64(field)
        if not 0 < length <= limit:
            raise self.fault(f"{field.capitalize()} has a name of {length} bytes")
        start = self.need(length, field)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault(f"{field.capitalize()} has a name that is not text") from None

    def preamble(self) -> tuple[int, int, int]:
        """Version, number of tensors, number of keys."""
        head = self.data[:32]
        if head[:4] != b"GGUF":
            raise self._foreign(head)
        self.position = 4
        version = self.u32("the version")
        if version & 0xFFFF == 0:
            raise ModelFileError(
                f"{shown(self.path.name)} is a big-endian GGUF",
                "This machine is little-endian",
                "Use the little-endian version of the model",
            )
        if version not in (2, 3):
            todo = "Use a newer version of the model" if version < 2 else "Update ktchat"
            raise ModelFileError(
                f"{shown(self.path.name)} is GGUF version {version}", "2 and 3 can be read", todo
            )
        tensors = self._count("tensors", MAX_TENSORS, _SMALLEST_TENSOR)
        return version, tensors, self._count("keys", MAX_KEYS, _SMALLEST_KEY)

    def _foreign(self, head: bytes) -> ModelFileError:
        why, todo = "Its first bytes are not GGUF", "Choose a file whose name ends in .gguf"
        for magic, foreign_why, foreign_todo in _FOREIGN:
            if head.startswith(magic):
                why, todo = foreign_why, foreign_todo
        return ModelFileError(f"{shown(self.path.name)} is not a GGUF model", why, todo)

    def _count(self, field: str, limit: int, smallest: int) -> int:
        count = self.u64(f"the number of {field}")
        if count > limit or count * smallest > self.size - self.position:
            raise self.fault(f"It claims {count} {field}, more than it can hold")
        return count

    def metadata(self, keys: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for number in range(keys):
            start = self.position
            key = self.name(MAX_KEY_NAME, f"key {number + 1} of {keys}")
            if key in found:
                raise self.fault(f"The key {shown(key)} is there twice")
            found[key] = self._value(f"the value of {shown(key)}")
            self.spans[key] = (start, self.position)
        return found

    def _value(self, field: str) -> Value:
        kind = self.u32(field)
        if kind == STRING:
            return self._string(field)
        if kind == ARRAY:
            return self._array(field)
        if kind not in SCALARS:
            raise self.fault(f"{field.capitalize()} has the unknown type {kind}")
        scalar = SCALARS[kind].struct
        value: int | float = scalar.unpack_from(self.data, self.need(scalar.size, field))[0]
        return bool(value) if kind == BOOL else value

    def _string(self, field: str) -> str:
        length = self.u64(field)
        self.string_bytes += length
        if length > MAX_STRING or self.string_bytes > MAX_STRING_TOTAL:
            raise self.fault(f"{field.capitalize()} claims {length} bytes of text")
        start = self.need(length, field)
        return self.data[start : start + length].decode("utf-8", "replace")

    def _array(self, field: str) -> LazyArray:
        kind, count = self.u32(field), self.u64(field)
        if kind == ARRAY:
            raise self.fault(f"{field.capitalize()} is an array of arrays, which no model uses")
        if kind != STRING and kind not in SCALARS:
            raise self.fault(f"{field.capitalize()} is an array of the unknown type {kind}")
        start = self.position
        if kind == STRING:
            self._skip_strings(count, field)
        else:
            self.need(count * SCALARS[kind].struct.size, field)
        return LazyArray(self.data, kind, count, start)

    def _skip_strings(self, count: int, field: str) -> None:
        """Move behind `count` strings; a tight loop, since a vocabulary has some 300,000."""
        self.strings += count
        if self.strings > MAX_STRINGS or count * 8 > self.limit - self.position:
            raise self.fault(f"{field.capitalize()} claims {count} strings, more than it can hold")
        data, position, last, unpack = self.data, self.position, self.end - 8, _U64.unpack_from
        for _ in range(count):
            if position > last:
                raise self.overrun(field)
            position += 8 + unpack(data, position)[0]
        if position > self.end:
            raise self.overrun(field)
        self.position = position

    def alignment(self, value: Value) -> int:
        usable = type(value) is int and 8 <= value <= MAX_ALIGNMENT and not value & (value - 1)
        if not usable or not isinstance(value, int):
            raise self.fault(f"general.alignment is {shown(str(value))}, not a power of two from 8")
        return value

    def tensors(self, count: int, alignment: int, part: int) -> list[TensorInfo]:
        """The tensor table. Tensors lie one behind another, padded to the alignment."""
        found = []
        expected = 0
        for number in range(count):
            name, kind, shape, offset = self._tensor(f"tensor {number + 1} of {count}")
            if offset != expected:
                raise self.fault(
                    f"Tensor {shown(name)} starts at {offset} of the data, not at {expected}"
                )
            nbytes = kind.row_bytes(shape[-1])
            for size in shape[:-1]:
                nbytes *= size
            expected += nbytes + -nbytes % alignment
            found.append(TensorInfo(name, kind, shape, part, offset, nbytes))
        data = self.position + -self.position % alignment
        if found and data + found[-1].offset + found[-1].nbytes > self.size:
            whole = data + found[-1].offset + found[-1].nbytes
            raise ModelFileError(
                f"{shown(self.path.name)} is incomplete",
                f"It has {self.size} of {whole} bytes",
                DOWNLOAD,
            )
        return [TensorInfo(t.name, t.type, t.shape, part, data + t.offset, t.nbytes) for t in found]

    def _tensor(self, field: str) -> tuple[str, QuantType, tuple[int, ...], int]:
        name = self.name(MAX_TENSOR_NAME, field)
        field = f"tensor {shown(name)}"
        dims = self.u32(field)
        if not 1 <= dims <= 4:
            raise self.fault(f"{field.capitalize()} has {dims} dimensions")
        shape = tuple(self.u64(field) for _ in range(dims))[::-1]
        elements = 1
        for size in shape:
            elements *= size
        number = self.u32(field)
        offset = self.u64(field)
        if not 0 < elements < 1 << 63:
            raise self.fault(f"{field.capitalize()} has the impossible shape {list(shape)}")
        if number not in TYPES:
            refuse_foreign_type(shown(self.path.name), shown(name), number)
            raise self.fault(f"{field.capitalize()} has the unknown type {number}", "Update ktchat")
        kind = TYPES[number]
        if shape[-1] % kind.block:
            raise self.fault(
                f"{field.capitalize()} has rows of {shape[-1]}, not of whole blocks of {kind.block}"
            )
        return name, kind, shape, offset
