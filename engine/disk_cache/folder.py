"""The folder of the disk cache: what it takes, what goes first, and which session has which files.

A folder for each model's key holds its records, and a list of names for each session. A file's time says when it
was used last, a little earlier the further it is from the beginning: what goes first is then always the end of what
was not used for the longest, and what stays can be used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PART = ".part"
"""How the name of a file ends that is being written."""

MOST = 10 * 10**9
"""Bytes that the cache may take where nothing is said,"""
SHARE = 10
"""and not more than one part in so many of what is free without it."""
SPARE = 1 << 30
"""Bytes of disk that the cache leaves free, whatever it may take."""
AHEAD = 20
"""Where room is made, it is at least one part of the budget in so many: looking for what goes first takes a while."""

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Backups may leave this folder out.\n"
"""https://bford.info/cachedir/"""
_SESSION = ".session"
_LIST_BYTES = 64 << 20
_DEAD_SECONDS = 3600.0
DEEPER_NS = 1000
"""A token further from the beginning was used so much earlier."""


class Named(Protocol):
    """A record, as far as its file goes."""

    @property
    def name(self) -> str:
        """The file's."""
        ...

    @property
    def end(self) -> int:
        """Tokens up to its end."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A record's file."""

    path: Path
    bytes: int
    used_ns: int


class CacheFolder:
    """The cache at `path`, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def used(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.entries())

    def budget(self, wanted: int | None) -> int:
        """Bytes that it may take: `wanted`, or the least of 10 GB and a tenth of the free disk."""
        if wanted is not None:
            return wanted
        return min(MOST, (self._free() + self.used()) // SHARE)

    def entries(self) -> Iterator[Entry]:
        """Every record's file."""
        for folder in self._models():
            for item in _files(folder):
                if not item.name.endswith((_SESSION, PART)):
                    with contextlib.suppress(OSError):
                        status = item.stat(follow_symlinks=False)
                        yield Entry(Path(item.path), status.st_size, status.st_mtime_ns)

    def make_room(self, count: int, budget: int, before_ns: int) -> int:
        """Remove what was used longest ago, but nothing used since `before_ns`, until `count` bytes more and
        some for those after them are within the budget. How many bytes then are. Raises `OSError`.
        """
        entries = sorted(self.entries(), key=lambda entry: entry.used_ns)
        room = budget - sum(entry.bytes for entry in entries)
        for entry in entries:
            if room >= max(count, budget // AHEAD) or entry.used_ns >= before_ns:
                break
            entry.path.unlink(missing_ok=True)
            room += entry.bytes
        return room

    def has_disk_for(self, count: int) -> bool:
        """Whether so many bytes more leave the disk what it needs for others."""
        return self._free() >= count + SPARE

    def forget_sessions(self, all_but: Iterable[str]) -> None:
        """Forget the files that only sessions have which are not among `all_but`."""
        kept = {_list_name(session) for session in all_but}
        for folder in self._models():
            with contextlib.suppress(OSError):
                for item in _files(folder):
                    if item.name.endswith(_SESSION) and item.name not in kept:
                        Path(item.path).unlink()
                ModelFolder(folder).sweep()

    def clear(self) -> int:
        """Remove everything; how many bytes that were. Raises `OSError`."""
        used = self.used()
        for folder in self._models():
            shutil.rmtree(folder)
        return used

    def model(self, key: bytes) -> ModelFolder:
        """The folder of the model with this key."""
        return ModelFolder(self.path / key.hex()[:32])

    def _models(self) -> list[Path]:
        try:
            with os.scandir(self.path) as items:
                return [Path(i.path) for i in items if i.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def _free(self) -> int:
        path = self.path
        while not path.exists() and path != path.parent:
            path = path.parent
        try:
            return shutil.disk_usage(path).free
        except OSError:
            return 0


class ModelFolder:
    """What is kept of one model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Create it, for this user only. Raises `OSError`."""
        for folder in (self.path.parent, self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(folder.stat().st_mode) != 0o700:
                folder.chmod(0o700)
        tag = self.path.parent / "CACHEDIR.TAG"
        if not tag.exists():
            _write(tag, _TAG)

    def has(self, record: Named) -> bool:
        """Whether a file of this name is there."""
        return (self.path / record.name).exists()

    def names(self) -> set[str]:
        """All files."""
        return {item.name for item in _files(self.path)}

    def touch(self, records: Iterable[Named], now_ns: int) -> None:
        """These were used now; of those that are not there nothing is said."""
        for record in records:
            used = now_ns - record.end * DEEPER_NS
            with contextlib.suppress(OSError):
                os.utime(self.path / record.name, ns=(used, used), follow_symlinks=False)

    def note(self, session: str, names: Iterable[str]) -> None:
        """Add to what a session has; names of files that have gone are dropped. Raises `OSError`."""
        path = self.path / _list_name(session)
        there = self.names()
        noted = [name for name in _listed(path) if name in there]
        every = dict.fromkeys([*noted, *names])
        part = path.with_suffix(PART)
        _write(part, "".join(f"{name}\n" for name in every))
        part.replace(path)

    def sweep(self) -> None:
        """Remove what no session has, and what was left half written. Raises `OSError`."""
        items = _files(self.path)
        lists = [Path(item.path) for item in items if item.name.endswith(_SESSION)]
        had = {name for path in lists for name in _listed(path)}
        for item in items:
            if not item.name.endswith((_SESSION, PART)) and item.name not in had:
                Path(item.path).unlink(missing_ok=True)
        self.remove_parts()
        if not lists:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def remove_parts(self) -> None:
        """Remove what a writer that was killed has left."""
        for item in _files(self.path):
            with contextlib.suppress(OSError):
                if item.name.endswith(PART) and time.time() - item.stat().st_mtime > _DEAD_SECONDS:
                    Path(item.path).unlink()


def _files(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return [item for item in items if item.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    """A file for this user only."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)


def _list_name(session: str) -> str:
    """A session's id may come from a foreign file: it names no path."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()[:32] + _SESSION


def _listed(path: Path) -> list[str]:
    """The names in a session's list; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_LIST_BYTES).decode("ascii", "replace").split()
    except OSError:
        return []
