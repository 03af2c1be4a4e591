"""Server-sent events: the data of each, from pieces of bytes that may end anywhere.

After the HTML standard, section 9.2. An event without its empty line is none; a field `error`, which some
servers write, counts as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST = 4 << 20
"""Bytes of one event."""

_END = re.compile(rb"\r\n|\n|\r")


class EventTooLongError(Exception):
    """One event is longer than `LONGEST`."""


class Events:
    """Cuts a stream into the data of its events. A character is decoded when its whole line is there."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """The data of the events that `piece` completes. Raises `EventTooLongError`."""
        self._held += piece
        begin = 0
        while (end := _END.search(self._held, max(begin, self._searched))) is not None:
            if end[0] == b"\r" and end.end() == len(self._held):
                break  # its newline may be still to come
            line = bytes(self._held[begin : end.start()])
            begin = self._searched = end.end()
            yield from self._take(line)
        del self._held[:begin]
        self._searched = max(0, len(self._held) - 1)
        if len(self._held) + self._size > LONGEST:
            raise EventTooLongError

    def _take(self, line: bytes) -> Iterator[str]:
        if not line:
            data, self._data, self._size = "\n".join(self._data), [], 0
            if data:
                yield data
            return
        name, _, value = line.partition(b":")
        if name.removeprefix(b"\xef\xbb\xbf") in (b"data", b"error"):
            self._size += len(value)
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
