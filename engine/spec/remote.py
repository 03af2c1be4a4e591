"""A model's spec from the beginning of its files, before any of them is downloaded.

The caller hands in a function that reads ranges; every check of a local file holds here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from engine.errors import ModelFileError
from engine.gguf.beginning import Read, read_beginning
from engine.gguf.file import GGUFFile, TensorInfo, check_parts
from engine.gguf.header import Header, shown
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec

MAX_TENSOR = 1 << 20
"""Bytes of a tensor whose values the spec may need (rope factors)."""


@dataclass(frozen=True, slots=True)
class RemotePart:
    """One file of a model: its name, its bytes in all, and how to read some of them."""

    name: str
    size: int
    read: Read


def spec_from_header(read: Read, size: int, name: str = "model.gguf") -> ModelSpec:
    """The spec of a model in one file of `size` bytes.

    Raises `ModelFileError` and `UnsupportedModelError` as for a local file, and what `read` raises.
    """
    return spec_from_parts([RemotePart(name, size, read)])


def spec_from_parts(parts: Sequence[RemotePart]) -> ModelSpec:
    """The spec of a model in one or several files, all of them given, in order."""
    with RemoteGGUF.open_parts(parts) as file:
        return read_spec(file)


class RemoteGGUF(GGUFFile):
    """A model of which only the headers are here. Its small tensors can be read one by one."""

    def __init__(self, parts: Sequence[RemotePart], headers: Sequence[Header]) -> None:
        super().__init__([_path(part) for part in parts], (), headers)
        self._parts = tuple(parts)

    @classmethod
    def open_parts(cls, parts: Sequence[RemotePart]) -> RemoteGGUF:
        """Fetch and check every header. Raises `ModelFileError`."""
        headers = [_fetch(part, number) for number, part in enumerate(parts)]
        check_parts([_path(part) for part in parts], headers)
        return cls(parts, headers)

    def _bytes(self, info: TensorInfo) -> bytes:
        part = self._parts[info.part]
        if info.nbytes > MAX_TENSOR:
            raise ModelFileError(
                f"{shown(part.name)} is not downloaded",
                f"Its tensor {shown(info.name)} would have to be read",
                "Download the model first",
            )
        return _read(part, info.offset, info.nbytes)


def _fetch(part: RemotePart, number: int) -> Header:
    if part.size < 1:
        raise ModelFileError(f"{shown(part.name)} is empty", "", "Choose another version")
    return read_beginning(partial(_read, part), part.size, _path(part), number)


def _read(part: RemotePart, offset: int, length: int) -> bytes:
    data = part.read(offset, length)
    if len(data) != length:
        raise ModelFileError(
            f"{shown(part.name)} could not be read",
            f"{length} bytes were asked for and {len(data)} came",
            "Try again",
        )
    return data


def _path(part: RemotePart) -> Path:
    """The part's name as messages repeat it."""
    return Path(PurePosixPath(part.name).name or "model.gguf")
