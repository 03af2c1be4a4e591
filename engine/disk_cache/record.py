"""One file of the disk cache: a page of KV, what a sequence ends with, or logits; and its name.

A file is a head, a payload and the SHA-256 of the two. Nothing in a file is parsed: whoever looks for one knows
every byte of its head and the size of its payload, and what is not exactly so, or does not match its checksum, is
no record. So a file that is foreign, cut, changed or of another version reads as if there were none.

Names are a chain of hashes over tokens: a page's name stands for all tokens up to its end, and sequences that
begin alike have the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.disk_cache.folder import PART

Bytes = npt.NDArray[np.uint8]
Kind = Literal["page", "end", "logits"]

_HEAD = struct.Struct("<8sI4x8s32s32sQQQ")
_MAGIC, _VERSION = b"KTCHATKV", 1
_DIGEST = hashlib.sha256().digest_size
_PIECE = 1 << 20
"""Bytes hashed and written at once: so soon a message that arrives stops the writing."""
_NAME_LENGTH = 40


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The writing was given up: a message has arrived."""


@dataclass(frozen=True, slots=True)
class Record:
    """What identifies a file: the model's key, the chain of tokens before it, and its own tokens.

    An "end" is what a sequence needs to go on behind `tokens`, which fill no page: their part of the page, and
    the bounded states at that position. "logits" are those behind an end's last token. `payload` counts bytes.
    """

    kind: Kind
    key: bytes
    parent: bytes
    """Of the whole pages before it."""
    position: int
    """Tokens before it."""
    tokens: tuple[int, ...]
    payload: int

    @property
    def digest(self) -> bytes:
        """The link of the chain that stands for all tokens up to the end of this one's."""
        said = self.kind.encode() + self.parent + _packed(self.tokens)
        return hashlib.sha256(said).digest()

    @property
    def name(self) -> str:
        """The file's."""
        return f"{self.digest.hex()[:_NAME_LENGTH]}.{self.kind}"

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._head) + self.payload + _DIGEST

    @property
    def end(self) -> int:
        """Tokens up to its end."""
        return self.position + len(self.tokens)

    @property
    def _head(self) -> bytes:
        kind, count = self.kind.encode(), len(self.tokens)
        fixed = (_MAGIC, _VERSION, kind, self.key, self.parent, self.position, count, self.payload)
        return _HEAD.pack(*fixed) + _packed(self.tokens)

    def write(self, folder: Path, payload: Sequence[Bytes], stopped: Callable[[], bool]) -> None:
        """Write the file into `folder`, whole or not at all, for this user only.

        Raises `OSError`, and `Stopped` soon after `stopped` says so.
        """
        part = folder / f"{self.name}.{os.getpid()}{PART}"
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                checksum = hashlib.sha256()
                for piece in _pieces([np.frombuffer(self._head, np.uint8), *payload]):
                    if stopped():
                        raise Stopped
                    checksum.update(piece)
                    _write_all(file.fileno(), piece)
                _write_all(file.fileno(), memoryview(checksum.digest()))
            part.replace(folder / self.name)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise

    def read(self, folder: Path) -> Bytes | None:
        """The payload, if the file is there and exactly what it should be. What is not is removed."""
        path, head = folder / self.name, self._head
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            data = _read(handle, self.size)
        except OSError:
            data = None
        finally:
            os.close(handle)
        if data is not None and data[: len(head)].tobytes() == head and _is_sound(data):
            return data[len(head) : -_DIGEST]
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def _packed(tokens: Sequence[int]) -> bytes:
    return np.asarray(tokens, "<i4").tobytes()


def _pieces(arrays: Sequence[Bytes]) -> list[memoryview]:
    return [
        memoryview(array[first : first + _PIECE])  # type: ignore[arg-type]
        for array in arrays
        for first in range(0, len(array), _PIECE)
    ]


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _read(handle: int, size: int) -> Bytes | None:
    """All of a file of this size; None for any other. Raises `OSError`."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        return None
    data = np.empty(size, np.uint8)
    view = memoryview(data)  # type: ignore[arg-type]
    while view:
        count = os.readv(handle, [view])
        if not count:
            return None
        view = view[count:]
    return data


def _is_sound(data: Bytes) -> bool:
    """Whether a file's checksum is right."""
    checksum = hashlib.sha256(memoryview(data[:-_DIGEST]))  # type: ignore[arg-type]
    return checksum.digest() == data[-_DIGEST:].tobytes()
