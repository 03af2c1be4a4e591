"""Reads as much of a file's beginning as its header takes, and no byte that is not there.

The header is read, not mapped: a mapped file that somebody shortens ends the process that looks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.gguf.header import MAX_HEADER, Header, HeaderCutError, read_header

Read = Callable[[int, int], bytes]
"""Called with an offset and a length, returns exactly that many bytes or raises."""

FIRST = 1 << 20
"""Bytes read first; then twice as many in all, until the header is whole."""


def read_beginning(
    read: Read, size: int, path: Path, part: int = 0, first: int | None = None
) -> Header:
    """The header of a file of `size` bytes, of which `first` are read at first.

    Raises what `read_header` and `read` raise. `path` is what messages call the file.
    """
    data = b""
    wanted = FIRST if first is None else first
    while True:
        wanted = min(wanted, size, MAX_HEADER)
        data += read(len(data), wanted - len(data))
        try:
            return read_header(data, path, part, size)
        except HeaderCutError:
            wanted *= 2
