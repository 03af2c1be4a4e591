"""Locks that tell which session is open in which running ktchat.

There is one empty file a session, held with flock(2): the system frees it when the process ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ktchat.common.paths import private_folder

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Locks:
    """The sessions that this process holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def acquire(self, name: str, wait: bool = False) -> bool:
        """Hold `name`; False when another process does and we shall not `wait` for it.

        Raises `OSError`. Repeating is harmless.
        """
        if name in self._held:
            return True
        path = self._path(name)
        private_folder(self._folder)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(handle)
                return False
            except OSError:
                os.close(handle)
                raise
            if _is_file_of(handle, path):
                self._held[name] = handle
                return True
            os.close(handle)  # its last holder removed the file meanwhile: try the new one

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold `name` for a while; waits for other processes. Raises `OSError`."""
        self.acquire(name, wait=True)
        try:
            yield
        finally:
            self.release(name)

    def holds(self, name: str) -> bool:
        """Whether this process holds `name`."""
        return name in self._held

    def is_free(self, name: str) -> bool:
        """Whether no other process holds `name`."""
        if name in self._held:
            return True
        try:
            handle = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def sweep(self) -> None:
        """Remove the files that processes left behind which ended without releasing."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.lock"):
                name = path.name.removesuffix(".lock")
                if name not in self._held and self.acquire(name):
                    self.release(name)

    def release(self, name: str) -> None:
        """Let go of `name`, if held."""
        handle = self._held.pop(name, None)
        if handle is None:
            return
        with contextlib.suppress(OSError):
            self._path(name).unlink()
        os.close(handle)

    def release_all(self) -> None:
        """Let go of everything."""
        for name in list(self._held):
            self.release(name)

    def _path(self, name: str) -> Path:
        if not _PLAIN.fullmatch(name):  # an id from a foreign file must not name a path
            name = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
        return self._folder / f"{name}.lock"


def _is_file_of(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False
