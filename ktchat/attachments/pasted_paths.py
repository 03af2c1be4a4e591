"""Paths in what a terminal pastes when files are dropped on it: quoted, with backslashes, or as file URLs."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_PATHS = 20
MAX_LENGTH = 20_000
"""Characters of a paste that may be paths."""


def candidates(text: str) -> list[str]:
    """The paths that a paste may be, whether they exist or not; empty: it is text.

    Each is absolute, begins with `~/`, or is a file URL: words alone are never taken for files.
    """
    text = text.strip()
    if not text or len(text) > MAX_LENGTH or text[0] not in "/~'\"f":
        return []
    for words in (_lines(text), _shell(text), [text]):
        paths = [_path(word) for word in words]
        if paths and all(paths) and len(paths) <= MAX_PATHS:
            return [path for path in paths if path]
    return []


def existing(text: str) -> list[Path]:
    """The files and folders that a paste names; empty where one of them is not there. Blocks."""
    for paths in (candidates(text), _alone(text)):
        found = [Path(path) for path in paths]
        try:
            if found and all(path.exists() for path in found):
                return found
        except OSError:
            continue
    return []


def typed_path(text: str) -> Path:
    """A path as a person types it: quoted or not, `~` for the home folder, relative to the working folder."""
    found = candidates(text) or _shell(text)
    word = found[0] if len(found) == 1 else text.strip()
    try:
        return Path(word).expanduser().absolute()
    except (OSError, RuntimeError):
        return Path(word)


def _alone(text: str) -> list[str]:
    """The whole text as one path: some terminals paste spaces as they are."""
    path = _path(text.strip()) if len(text) <= MAX_LENGTH and "\n" not in text.strip() else ""
    return [path] if path else []


def _lines(text: str) -> list[str]:
    """File URLs, one a line, as desktops give them."""
    lines = text.splitlines()
    return lines if all(line.startswith("file://") for line in lines) else []


def _shell(text: str) -> list[str]:
    """Words as a shell would read them."""
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _path(word: str) -> str:
    """An absolute path; empty: the word is none."""
    if "\0" in word or "\n" in word:
        return ""
    if word.startswith("file://"):
        url = urlsplit(word)
        if url.netloc not in ("", "localhost"):
            return ""
        word = unquote(url.path)
    if word.startswith("~/"):
        try:
            word = str(Path(word).expanduser())
        except RuntimeError:
            return ""
    return word if word.startswith("/") and len(word) > 1 and "\0" not in word else ""
