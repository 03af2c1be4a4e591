"""Files that many tests need, made once in a run: by the process that comes first, for all that share its folder."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

_folder: Path | None = None


def share(folder: Path) -> None:
    """Keep shared files in `folder` from now on. Nobody may change what lies there."""
    global _folder
    folder.mkdir(exist_ok=True)
    _folder = folder


def folder() -> Path:
    """Where shared files are."""
    assert _folder is not None, "there is none outside of a run of the tests"
    return _folder


def is_there() -> bool:
    """Whether files are shared: in a run of the tests, and not in its programs."""
    return _folder is not None


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """`path`, made by `make` unless it is there or somebody is making it."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_name(f".{path.name}.part")
            make(part)
            part.replace(path)
    return path
