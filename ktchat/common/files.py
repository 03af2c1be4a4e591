"""Files that the person asked for: written whole or not at all, and not over another one unasked."""

from __future__ import annotations

import re
from pathlib import Path

from engine.common.whole_files import write_whole
from ktchat.common.errors import StoreError, reason_of
from ktchat.common.text import one_line

_UNFIT = re.compile(r"[^\w\- ]+")


def write_text(path: Path, text: str) -> None:
    """Write a file for this user only; an old one is replaced at once. Raises `StoreError`."""
    data = text.encode("utf-8", "replace")
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():  # a device or a pipe is not replaced
            target.write_bytes(data)
        else:
            write_whole(target, data)
    except OSError as error:
        why, todo = reason_of(error)
        raise StoreError(f"{one_line(str(path))} cannot be written", why, todo) from error


def name_for(title: str, suffix: str) -> str:
    """A file name from a title: its letters, digits, blanks and hyphens."""
    words = " ".join(_UNFIT.sub(" ", title).split())[:60].strip()
    return f"{words or 'session'}{suffix}"


def free(path: Path) -> str:
    """The path, or one with a number where there is a file of this name; `~` stays."""
    for number in range(1, 1000):
        named = path if number == 1 else path.with_stem(f"{path.stem} {number}")
        try:
            if not named.expanduser().exists():
                return str(named)
        except (OSError, RuntimeError):
            break
    return str(path)
