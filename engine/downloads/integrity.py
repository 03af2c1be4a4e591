"""Whether model files on disk are still what they were, and their removal.

Beside each file in the models folder lies a record: its origin, sha256, size and when it was last
found intact. A file is hashed again only when its size, time or inode changed, or on demand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine.common.split_names import split_part
from engine.common.whole_files import write_whole
from engine.downloads.block_file import BLOCKS, JOURNAL, PART, disk_error
from engine.hub.errors import DamagedModelError, DownloadError
from engine.hub.names import HubFile

RECORD = ".origin.json"
CHUNK = 4 << 20

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a file in the models folder. `repo` is empty for an imported one."""

    checksum: str
    """`sha256:HEX` or `git-sha1:HEX`."""
    size: int
    modified_ns: int
    inode: int
    repo: str = ""
    commit: str = ""
    path: str = ""
    """In the repository."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result for one file that is intact. `hashed`: its bytes were read, not only its record."""

    path: Path
    checksum: str
    hashed: bool


def record_of(path: Path) -> Record | None:
    """The record beside a file, or None."""
    try:
        with Path(f"{path}{RECORD}").open("rb") as file:
            record = Record(**json.loads(file.read(1 << 16)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    numbers = (record.size, record.modified_ns, record.inode)
    texts = (record.checksum, record.repo, record.commit, record.path)
    good = all(type(n) is int for n in numbers) and all(isinstance(t, str) for t in texts)
    return record if good else None


def write_record(path: Path, checksum: str, file: HubFile | None = None) -> Record:
    """Note that the file at `path` was found to have `checksum`. Raises `OSError`."""
    status = path.stat()
    record = Record(
        checksum=checksum,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        inode=status.st_ino,
        repo=file.repo if file else "",
        commit=file.commit if file else "",
        path=file.path if file else "",
    )
    write_whole(Path(f"{path}{RECORD}"), json.dumps(asdict(record)).encode())
    return record


def write_unchecked_record(path: Path, checksum: str) -> None:
    """Note what the file at `path` ought to be; the next `check_files` reads it. Raises `OSError`."""
    record = Record(checksum, path.stat().st_size, modified_ns=0, inode=0)
    write_whole(Path(f"{path}{RECORD}"), json.dumps(asdict(record)).encode())


def is_unchanged(path: Path, record: Record) -> bool:
    """Whether a file still has the size, time and inode of its record."""
    try:
        status = path.stat()
    except OSError:
        return False
    now = (status.st_size, status.st_mtime_ns, status.st_ino)
    return now == (record.size, record.modified_ns, record.inode)


def changed_since_check(paths: Iterable[Path]) -> Path | None:
    """The first of these files that was written since it was last found intact; None also where nothing is known."""
    for path in paths:
        record = record_of(path)
        if record is not None and record.modified_ns and not is_unchanged(path, record):
            return path
    return None


def parts_of(path: Path) -> list[Path]:
    """All files of the model at `path` that its name promises."""
    part = split_part(path.name)
    if part is None or not 1 <= part.count <= 1024:
        return [path]
    return [path.with_name(part.name(number)) for number in range(1, part.count + 1)]


def check_files(
    path: Path,
    force: bool = False,
    report: Report = lambda done, total: None,
    folder: Path | None = None,
) -> list[Checked]:
    """Check every file of a model against the recorded checksum.

    A file without a record is hashed, and recorded from then on if it lies in `folder`. Raises `DamagedModelError` naming the damaged file, `DownloadError` when one cannot be read.
    """
    parts = parts_of(path)
    try:
        total = sum(part.stat().st_size for part in parts)
    except OSError as error:
        name = Path(error.filename).name if error.filename else path.name
        raise DownloadError(
            f"{name} cannot be read", error.strerror or "", "Download the model again"
        ) from error
    results: list[Checked] = []
    before = 0
    for part in parts:

        def report_part(done: int, start: int = before) -> None:
            report(start + done, total)

        results.append(_verify_file(part, force, report_part, folder))
        before += part.stat().st_size
        report(before, total)
    return results


def _verify_file(
    path: Path, force: bool, report: Callable[[int], None], folder: Path | None
) -> Checked:
    record = record_of(path)
    if record is not None and not force and is_unchanged(path, record):
        return Checked(path, record.checksum, False)
    kind = record.checksum.partition(":")[0] if record is not None else "sha256"
    try:
        checksum = checksum_of(path, kind, report)
    except OSError as error:
        raise disk_error(error, path.name) from error
    if record is not None and checksum != record.checksum:
        raise DamagedModelError(
            f"{path.name} is damaged",
            "Its bytes do not match the checksum that was recorded",
            _cure(path, record),
        )
    with contextlib.suppress(OSError):  # the result holds without a record
        if record is not None:
            _refresh(path, record)
        elif folder is not None and folder in path.parents:
            write_record(path, checksum)
    return Checked(path, checksum, True)


def _cure(path: Path, record: Record) -> str:
    if record.repo:
        return f"Mend it: ktchat models pull {record.repo}/{record.path}"
    return f"Remove it: ktchat models rm {ascii(str(path))[1:-1]}"


def _refresh(path: Path, record: Record) -> None:
    status = path.stat()
    size, time, inode = status.st_size, status.st_mtime_ns, status.st_ino
    fresh = replace(record, size=size, modified_ns=time, inode=inode)
    write_whole(Path(f"{path}{RECORD}"), json.dumps(asdict(fresh)).encode())


def checksum_of(path: Path, kind: str, report: Callable[[int], None] = lambda done: None) -> str:
    """The checksum of a file, `kind` being `sha256` or `git-sha1`. Raises `OSError`."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        whole = hashlib.sha1(usedforsecurity=False) if kind == "git-sha1" else hashlib.sha256()
        if kind == "git-sha1":
            whole.update(f"blob {size}\0".encode())
        done = 0
        while piece := file.read(CHUNK):
            whole.update(piece)
            done += len(piece)
            report(done)
    return f"{kind}:{whole.hexdigest()}"


def remove(path: Path) -> int:
    """Delete every file of a model, its records, part files and journals; bytes set free.

    Raises `DownloadError`. Folders that become empty go too.
    """
    freed = 0
    parts = parts_of(path)
    try:
        for part in parts:
            for ending in (PART, JOURNAL, BLOCKS, RECORD, ""):
                with contextlib.suppress(FileNotFoundError):
                    target = Path(f"{part}{ending}")
                    freed += target.lstat().st_size
                    target.unlink()
    except OSError as error:
        raise DownloadError(
            f"{part.name} cannot be removed", error.strerror or "", "Check its permissions"
        ) from error
    return freed


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Remove `folder` and those above it, below `root`, as long as they are empty."""
    with contextlib.suppress(OSError):
        while folder != root and root in folder.parents:
            folder.rmdir()
            folder = folder.parent
