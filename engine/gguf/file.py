"""A GGUF model on disk: metadata and tensor table, read; weights, memory-mapped.

A model may be split into several files. Every fault is a `ModelFileError` that names the file, the
field and what to do.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np

from engine.common.split_names import split_part
from engine.errors import ModelFileError
from engine.gguf.beginning import read_beginning
from engine.gguf.header import DOWNLOAD, Header, TensorInfo, shown
from engine.gguf.values import LazyArray, Value
from kernels.ops import Tensor

__all__ = ["GGUFFile", "LazyArray", "TensorInfo", "Value"]

MAX_PARTS = 1024
FIRST_HERE = 8 << 20
"""Bytes read at first: most headers are shorter, and a disk does not mind the rest."""


class GGUFFile:
    """An open model. The weights stay on disk until they are read through `tensor`."""

    def __init__(
        self, paths: Sequence[Path], maps: Sequence[mmap.mmap], headers: Sequence[Header]
    ) -> None:
        self.paths = tuple(paths)
        self.version = headers[0].version
        self.metadata: Mapping[str, Value] = MappingProxyType(headers[0].metadata)
        self.tensors: dict[str, TensorInfo] = {}
        self._maps = list(maps)
        self._spans = headers[0].spans
        self._views = [np.frombuffer(data, np.uint8) for data in maps]
        for path, header in zip(paths, headers, strict=True):
            for info in header.tensors:
                if info.name in self.tensors:
                    raise _damaged(path, f"The tensor {shown(info.name)} is there twice")
                self.tensors[info.name] = info

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Open `path` and, when it is one part of a split model, all other parts.

        Raises `ModelFileError`: missing, unreadable, not a GGUF, damaged, incomplete.
        """
        first = _first_part(path)
        data, header = _open_part(first, 0)
        count = _split_number(first, header, "split.count", 1)
        if count > MAX_PARTS:
            raise _damaged(first, f"split.count is {count}; {MAX_PARTS} parts are possible")
        if count > 1:
            return cls._open_split(first, data, header, count)
        return cls([first], [data], [header])

    @classmethod
    def _open_split(cls, first: Path, data: mmap.mmap, header: Header, count: int) -> GGUFFile:
        named = split_part(first.name)
        if named is None or named.count != count:
            raise ModelFileError(
                f"{shown(first.name)} is part of a model in {count} files",
                "Its name has changed, so the other parts cannot be found",
                f"Name the parts NAME-00001-of-{count:05}.gguf and so on",
            )
        paths, maps, headers = [first], [data], [header]
        for number in range(2, count + 1):
            part = first.with_name(named.name(number))
            data, header = _open_part(part, number - 1)
            if _split_number(part, header, "split.count", 1) != count:
                raise _damaged(part, f"It is not part of a model in {count} files")
            paths.append(part)
            maps.append(data)
            headers.append(header)
        check_parts(paths, headers)
        return cls(paths, maps, headers)

    @property
    def path(self) -> Path:
        """The first part."""
        return self.paths[0]

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def tensor(self, name: str) -> Tensor:
        """The weights called `name`, not copied. Raises `ModelFileError` when there are none."""
        info = self.tensors.get(name)
        if info is None:
            raise _damaged(self.path, f"The tensor {shown(name)} is missing")
        data = self._views[info.part][info.offset : info.offset + info.nbytes]
        return Tensor(info.name, info.type, info.shape, data)

    def read(self, name: str) -> bytes:
        """The bytes of a small tensor: what is read cannot end the process, as what is mapped can."""
        return self._bytes(self.tensors[name])

    def _bytes(self, info: TensorInfo) -> bytes:
        path = self.paths[info.part]
        with path.open("rb") as file:
            file.seek(info.offset)
            data = file.read(info.nbytes)
        if len(data) != info.nbytes:
            raise _shortened(path)
        return data

    def metadata_alone(self) -> bytes:
        """A GGUF of the same metadata, without tensors and in one part."""
        spans = [span for key, span in self._spans.items() if not key.startswith("split.")]
        head = b"GGUF" + struct.pack("<IQQ", self.version, 0, len(spans))
        return head + b"".join(self._maps[0][start:end] for start, end in spans)

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back; they are read from disk if needed again."""
        info = self.tensors[name]
        first = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (info.offset + info.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
        data = self._maps[info.part]
        if length > 0 and hasattr(mmap, "MADV_DONTNEED") and isinstance(data, mmap.mmap):
            data.madvise(mmap.MADV_DONTNEED, first, length)

    def u32(self, key: str, default: int | None = None) -> int:
        """An integer from 0 to 2^32 - 1; `default` when the key is absent (None: it must be there)."""
        value = self._get(key, default)
        if type(value) is not int or not 0 <= value < 1 << 32:
            raise self._wrong(key, value, "a whole number from 0 to 4294967295")
        return value

    def f32(self, key: str, default: float | None = None) -> float:
        """A finite number; `default` when the key is absent (None: it must be there)."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a number")
        if not math.isfinite(value) or abs(value) > 3.5e38:
            raise self._wrong(key, value, "a finite number")
        return float(value)

    def string(self, key: str, default: str | None = None) -> str:
        """Text; `default` when the key is absent (None: it must be there)."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false; `default` when the key is absent (None: it must be there)."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def array(self, key: str) -> LazyArray | None:
        """An array, or None when the key is absent."""
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, LazyArray):
            raise self._wrong(key, value, "an array")
        return value

    def _get(self, key: str, default: Value | None) -> Value:
        value = self.metadata.get(key, default)
        if value is None:
            raise _damaged(self.path, f"The key {shown(key)} is missing")
        return value

    def _wrong(self, key: str, value: Value, wanted: str) -> ModelFileError:
        return _damaged(self.path, f"{shown(key)} is {shown(str(value), 40)}, not {wanted}")

    def close(self) -> None:
        """Let the file go. Views that are still held keep their part mapped until they die."""
        self._views.clear()
        self.tensors = {}
        self.metadata = MappingProxyType({})
        self._maps.clear()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_parts(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    """Whether headers are those of all parts of one split model. Raises `ModelFileError`."""
    for number, (part, header) in enumerate(zip(paths, headers, strict=True)):
        if _split_number(part, header, "split.count", 1) != len(headers):
            raise _damaged(part, f"It is not part of a model in {len(headers)} files")
        if _split_number(part, header, "split.no", 0) != number:
            raise _damaged(part, f"It does not hold part {number + 1}, as its name says")
    total = sum(len(header.tensors) for header in headers)
    if _split_number(paths[0], headers[0], "split.tensors.count", total) != total:
        raise _damaged(paths[0], f"The parts hold {total} tensors, not as many as it claims")


def _damaged(path: Path, why: str) -> ModelFileError:
    return ModelFileError(f"{shown(path.name)} is damaged", why, DOWNLOAD)


def _absent(path: Path) -> ModelFileError:
    named = split_part(path.name)
    if named is None:
        return ModelFileError(f"There is no file {shown(str(path), 200)}", "", "Check the path")
    return ModelFileError(
        f"{shown(path.name)} is missing",
        f"The model is split into {named.count} files",
        "Download the missing file into the same folder",
    )


def _first_part(path: Path) -> Path:
    """The first part of a split model when `path` is a later one."""
    named = split_part(path.name)
    return path if named is None or named.number <= 1 else path.with_name(named.name(1))


def _split_number(path: Path, header: Header, key: str, default: int) -> int:
    value = header.metadata.get(key, default)
    if type(value) is not int or value < 0:
        raise _damaged(path, f"{key} is not a whole number")
    return value


def _open_part(path: Path, number: int) -> tuple[mmap.mmap, Header]:
    name = shown(str(path), 200)
    try:
        if stat.S_ISDIR(mode := path.stat().st_mode):
            raise ModelFileError(f"{name} is a folder", "", "Choose a .gguf file in it")
        if not stat.S_ISREG(mode):  # to open a pipe would wait for its writer
            raise ModelFileError(f"{name} is not a file", "", "Choose a .gguf file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise ModelFileError(f"{name} is empty", "", DOWNLOAD)

            def read(offset: int, length: int) -> bytes:
                data = os.pread(file.fileno(), length, offset)
                if len(data) != length:
                    raise _shortened(path)
                return data

            header = read_beginning(read, size, path, number, FIRST_HERE)
            # Mapped with the size that fstat gives, so that the map never reaches past the file.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise _absent(path) from None
    except PermissionError:
        raise ModelFileError(
            f"{name} cannot be read", "Its permissions forbid it", f"Try: chmod u+r {name}"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(
            f"{name} cannot be opened", why, "Check the path and the disk"
        ) from None
    if len(data) < size:
        raise _shortened(path)
    return data, header


def _shortened(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{shown(path.name)} became shorter while it was read",
        "Another program writes it or removes it",
        "Wait for that, then try again",
    )
