"""The rows of a damaged SQLite file, read page by page, without its trees.

A table's rows lie on leaf pages, each of which says by itself where they are; a damaged page costs what is on it, and a
damaged root nothing. Source of the format: sqlite.org/fileformat2.html. Nothing in it is believed: what makes no sense
is no row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

TABLE_LEAF = 0x0D
MAX_CELLS = 4096
MAX_PAYLOAD = 1 << 28
USUAL_PAGE = 4096

Value = None | int | float | str | bytes
Row = tuple[int, list[Value]]
"""A row's number and its values, in the order of the table's columns."""

_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of the integers among serial types."""


def rows(path: Path) -> Iterator[Row]:
    """All rows of all tables, in the order of the pages. Raises `OSError`."""
    data = path.read_bytes()
    size = _page_size(data)
    for start in range(0, len(data), size):
        header = start + (100 if start == 0 else 0)
        if data[header : header + 1] == bytes([TABLE_LEAF]):
            yield from _rows_of(data, size, start, header)


def _page_size(data: bytes) -> int:
    size = int.from_bytes(data[16:18], "big")
    size = 1 << 16 if size == 1 else size
    return size if size >= 512 and size & (size - 1) == 0 else USUAL_PAGE


def _rows_of(data: bytes, size: int, start: int, header: int) -> Iterator[Row]:
    """The rows of one leaf page."""
    count = min(int.from_bytes(data[header + 3 : header + 5], "big"), MAX_CELLS)
    for cell in range(count):
        pointer = header + 8 + 2 * cell
        at = start + int.from_bytes(data[pointer : pointer + 2], "big")
        try:
            length, at = _varint(data, at)
            number, at = _varint(data, at)
            if 0 < length <= MAX_PAYLOAD and at < start + size:
                yield number, _values(_payload(data, size, at, length))
        except (IndexError, ValueError, struct.error):
            continue


def _payload(data: bytes, size: int, at: int, length: int) -> bytes:
    """A row's bytes, those on overflow pages too. Raises `ValueError` when they are not there."""
    usable = size - data[20] if data[20] <= size - 480 else size
    most = usable - 35
    if length <= most:
        return _exactly(data[at : at + length], length)
    least = (usable - 12) * 32 // 255 - 23
    here = least + (length - least) % (usable - 4)
    here = here if here <= most else least
    pieces, left = [data[at : at + here]], length - here
    page = int.from_bytes(data[at + here : at + here + 4], "big")
    while left > 0 and page:
        place = (page - 1) * size
        pieces.append(data[place + 4 : place + 4 + min(left, usable - 4)])
        if not pieces[-1]:
            break
        left -= len(pieces[-1])
        page = int.from_bytes(data[place : place + 4], "big")
    return _exactly(b"".join(pieces), length)


def _values(record: bytes) -> list[Value]:
    """The values of a record. Raises `IndexError` and `ValueError` for what is none."""
    end, at = _varint(record, 0)
    if end > len(record):
        raise ValueError
    kinds = []
    while at < end:
        kind, at = _varint(record, at)
        kinds.append(kind)
    values: list[Value] = []
    at = end
    for kind in kinds:
        value, width = _value(record, at, kind)
        values.append(value)
        at += width
    if at != len(record):
        raise ValueError
    return values


def _value(record: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind in _SIZES:
        return int.from_bytes(
            _exactly(record[at : at + _SIZES[kind]], _SIZES[kind]), "big", signed=True
        ), _SIZES[kind]
    if kind == 7:
        return float(struct.unpack_from(">d", record, at)[0]), 8
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), 0
    if kind < 12:
        raise ValueError
    width = (kind - 12) // 2
    data = _exactly(record[at : at + width], width)
    return (data.decode("utf-8", "replace") if kind % 2 else data), width


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(at, at + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise ValueError
    return data
