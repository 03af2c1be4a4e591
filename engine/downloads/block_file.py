"""A partly downloaded file on disk: its blocks, their digests in the journal, the space it needs.

The file is `NAME.part`, with its journal beside it. All calls may block and raise `OSError`; one
thread at a time may call anything but `write`, which several may.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from engine.common.os_errors import OUT_OF_SPACE, os_reason
from engine.downloads.journal import Journal, JournalHead, block_size
from engine.hub.errors import DiskShortError, DownloadError
from engine.hub.names import HubFile

SYNC_EVERY = 64 << 20
CHECK_SPACE_EVERY = 16 << 20
RESERVE = 1 << 30
"""Bytes of the disk that a download leaves free (a twentieth of a small disk)."""
PART, JOURNAL = ".part", ".part.journal"
"""What stands behind the final name while the file is not whole."""
BLOCKS = ".blocks"
"""Where the journal goes when it is: should the file be damaged, it tells which blocks are."""


def free_space(path: Path) -> int:
    """Bytes that downloads may still write to the disk of `path`."""
    usage = shutil.disk_usage(path)
    return max(0, usage.free - min(RESERVE, usage.total // 20))


def disk_error(error: OSError, name: str) -> DownloadError:
    """What a failure of the disk means."""
    why, todo = os_reason(error)
    why = why[:1].upper() + why[1:]
    if error.errno in OUT_OF_SPACE:
        todo += " and resume; what came is kept"
        return DiskShortError(f"{name} cannot be written", why, todo)
    return DownloadError(f"{name} cannot be written", why, todo or "Check the disk")


class BlockFile:
    """The part file of `file` at `part`, opened or created; never through a link."""

    def __init__(self, file: HubFile, part: Path, url: str, space: Callable[[Path], int]) -> None:
        self.size = file.size
        self.block = block_size(file.size)
        self._name = file.name
        self._folder = part.parent
        self._space = space
        self._unsynced = 0
        self._unchecked = CHECK_SPACE_EVERY  # bytes since the space was looked at
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(part, flags, 0o600)
        try:
            head = JournalHead(url, file.commit, file.size, file.checksum, self.block)
            self.journal = Journal(Path(f"{part}.journal"), head)
            os.ftruncate(self._handle, file.size)  # sparse: blocks come in any order
        except BaseException:
            os.close(self._handle)
            raise
        self.blocks = head.blocks

    def length(self, number: int) -> int:
        """Bytes of a block."""
        return min(self.block, self.size - number * self.block)

    def write(self, number: int, data: bytes) -> None:
        """Write a block and note it. Raises `DiskShortError` before the disk is full."""
        digest = hashlib.sha256(data).hexdigest()
        self._check_space(len(data))
        offset, view = number * self.block, memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, offset)
            view, offset = view[written:], offset + written
        self.journal.record(number, digest)
        self._unsynced += len(data)

    def read(self, number: int) -> bytes:
        """A block as it is on disk."""
        return os.pread(self._handle, self.length(number), number * self.block)

    def is_as_noted(self, number: int, data: bytes) -> bool:
        """Whether a block is what the journal says."""
        return hashlib.sha256(data).hexdigest() == self.journal.digests.get(number)

    def damaged(self) -> list[int]:
        """Noted blocks that are not on disk as they came."""
        noted = sorted(self.journal.digests)
        return [number for number in noted if not self.is_as_noted(number, self.read(number))]

    def restart(self) -> None:
        """Forget everything."""
        self.journal.restart()
        os.ftruncate(self._handle, 0)
        os.ftruncate(self._handle, self.size)

    @property
    def sync_is_due(self) -> bool:
        """Whether much was written since the last `sync`."""
        return self._unsynced >= SYNC_EVERY

    def sync(self) -> None:
        """Make sure that it survives a power loss. May take a second; writing can go on."""
        self._unsynced = 0
        os.fsync(self._handle)
        self.journal.sync()

    def close(self) -> None:
        """Let the files go."""
        os.close(self._handle)
        self.journal.close()

    def _check_space(self, count: int) -> None:
        self._unchecked += count
        if self._unchecked < CHECK_SPACE_EVERY:
            return
        self._unchecked = 0
        if self._space(self._folder) < count:
            raise DiskShortError(
                f"{self._name} cannot be written",
                "The disk is nearly full",
                "Free some space and resume; what came is kept",
            )
