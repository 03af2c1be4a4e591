"""The journal beside a partial download: which blocks of the file are on disk, and their sha256.

JSON lines, appended: the first says which file it is, each other that a block came (or has to come
again, when its digest is null). A torn last line is ignored. The digests locate damage: a block on
disk that does not match is fetched again, and only that.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = 1
MAX_BYTES = 64 << 20
MIN_BLOCK, MAX_BLOCK = 64 << 10, 8 << 20
MANY_BLOCKS = 2048
"""About so many blocks a file: the few that a killed program loses are less than a hundredth."""
DIGEST = 64


def block_size(size: int) -> int:
    """Bytes of a block in a file of `size` bytes: a power of two."""
    block = MIN_BLOCK
    while block < MAX_BLOCK and block * MANY_BLOCKS < size:
        block *= 2
    return block


@dataclass(frozen=True, slots=True)
class JournalHead:
    """Which file the blocks belong to. `url` is the hub's own, never a signed one."""

    url: str
    commit: str
    size: int
    checksum: str
    block: int
    format: int = FORMAT

    @property
    def blocks(self) -> int:
        """Number of blocks; the last may be short."""
        return -(-self.size // self.block)

    def same_content(self, other: JournalHead) -> bool:
        """Whether blocks of one serve the other: the checksum says so, whatever the commit."""
        mine = (self.size, self.checksum, self.block, self.format)
        return mine == (other.size, other.checksum, other.block, other.format)


class Journal:
    """An open journal. `record` may be called from several threads. Raises `OSError`."""

    def __init__(self, path: Path, head: JournalHead) -> None:
        self.head = head
        self.digests: dict[int, str] = {}
        """Of the blocks that came."""
        self.etag = ""
        """Of the server that sent them."""
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        try:
            end = self._load()
            os.ftruncate(self._file, end)
            if end == 0:
                self._append(asdict(head))
        except BaseException:
            self.close()
            raise

    def record(self, block: int, digest: str) -> None:
        """Note that a block is on disk."""
        with self._lock:
            self._append({"n": block, "sha256": digest})
            self.digests[block] = digest

    def drop(self, block: int) -> None:
        """Note that a block has to come again."""
        with self._lock:
            self._append({"n": block, "sha256": None})
            self.digests.pop(block, None)

    def set_etag(self, etag: str) -> None:
        """Note which version of the file the blocks are of."""
        with self._lock:
            if etag != self.etag:
                self._append({"etag": etag})
                self.etag = etag

    def restart(self) -> None:
        """Forget every block."""
        with self._lock:
            os.ftruncate(self._file, 0)
            self.digests.clear()
            self.etag = ""
            self._append(asdict(self.head))

    def sync(self) -> None:
        """Make sure that what was noted survives a power loss."""
        with contextlib.suppress(ValueError):
            os.fsync(self._file)

    def close(self) -> None:
        """Let the file go. Repeating is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, entry: dict[str, object]) -> None:
        data = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._file, data) :]

    def _load(self) -> int:
        """Read what is there; the length of the part that makes sense."""
        data = b""
        if os.fstat(self._file).st_size <= MAX_BYTES:
            data = _read_all(self._file)
        end = 0
        for line in data.splitlines(keepends=True):
            entry = _parse(line) if line.endswith(b"\n") else None
            if entry is None or not self._accept(entry, first=end == 0):
                break
            end += len(line)
        return end

    def _accept(self, entry: dict[str, object], first: bool) -> bool:
        if first:
            head = read_head(entry)
            return head is not None and head.same_content(self.head)
        etag = entry.get("etag")
        if isinstance(etag, str):
            self.etag = etag[:1000]
            return True
        block, digest = entry.get("n"), entry.get("sha256")
        if type(block) is not int or not 0 <= block < self.head.blocks:
            return False
        if digest is None:
            self.digests.pop(block, None)
            return True
        if not isinstance(digest, str) or len(digest) != DIGEST:
            return False
        self.digests[block] = digest
        return True


def read_head(entry: dict[str, object]) -> JournalHead | None:
    """The first line of a journal; None if it is not one."""
    try:
        head = JournalHead(**entry)  # type: ignore[arg-type]  # checked in the next lines
    except TypeError:
        return None
    texts = (head.url, head.commit, head.checksum)
    numbers = (head.size, head.block, head.format)
    if not all(isinstance(text, str) for text in texts) or not all(type(n) is int for n in numbers):
        return None
    return head if head.size > 0 and head.block > 0 else None


def bytes_kept(path: Path) -> int:
    """How many bytes of a download the journal at `path` says are there. 0 if it is unreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError:
        return 0
    head: JournalHead | None = None
    blocks: set[int] = set()
    for line in data.splitlines():
        entry = _parse(line)
        if entry is None:
            break
        if head is None:
            head = read_head(entry)
            if head is None:
                return 0
            continue
        block = entry.get("n")
        if type(block) is int and 0 <= block < head.blocks:
            (blocks.discard if entry.get("sha256") is None else blocks.add)(block)
    if head is None:
        return 0
    last = head.blocks - 1
    short = head.blocks * head.block - head.size if last in blocks else 0
    return len(blocks) * head.block - short


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _read_all(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(file, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
