"""Paths for completion and for a folder's list: what is below a folder, without what is heavy, hidden or ignored.

Everything here blocks and is bounded in time and number: call it in a thread. Nothing is executed, no link is followed.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

MAX_PATHS = 20_000
MAX_DEPTH = 12
PATHS_AT_ONCE = 200
"""Paths that are looked at in one go."""
SECONDS = 2.0
MAX_IGNORE = 256 << 10
"""Bytes of a .gitignore that are read."""

HEAVY = frozenset(
    (
        *("node_modules", "__pycache__", "venv", "env", "site-packages", "target", "dist", "build"),
        *("vendor", "bower_components", "DerivedData", "Pods"),
    )
)
"""Folders of what programs made, wherever they lie."""


def below(folder: Path, *, most: int = MAX_PATHS, seconds: float = SECONDS) -> Iterator[str]:
    """Paths below a folder, relative to it, those of folders with a slash at the end; near ones first."""
    deadline = time.monotonic() + seconds
    waiting: list[tuple[str, int, tuple[_Ignored, ...]]] = [("", 0, ())]
    number = 0
    while waiting and time.monotonic() < deadline:
        time.sleep(0)
        inside, depth, rules = waiting.pop(0)
        rules = (*rules, *_rules_in(folder, inside))
        for name, is_folder in _entries(folder / inside):
            path = inside + name + ("/" if is_folder else "")
            if any(rule.ignores(path) for rule in rules) or not path.isprintable():
                continue
            yield path
            number += 1
            if number >= most:
                return
            if is_folder and depth < MAX_DEPTH:
                waiting.append((path, depth + 1, rules))


class _Ignored:
    """A .gitignore: its folder, with a slash at the end, and its patterns."""

    def __init__(self, folder: str, text: str) -> None:
        self._folder = folder
        self._patterns = GitIgnoreSpec.from_lines(text.splitlines())

    def ignores(self, path: str) -> bool:
        return self._patterns.match_file(path.removeprefix(self._folder))


def _rules_in(folder: Path, inside: str) -> list[_Ignored]:
    try:
        path = folder / inside / ".gitignore"
        if not path.is_file():
            return []
        with path.open("rb") as file:
            return [_Ignored(inside, file.read(MAX_IGNORE).decode("utf-8", "replace"))]
    except (OSError, ValueError):
        return []


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder; no hidden and no heavy ones, files first."""
    found: list[tuple[str, bool]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or len(found) >= MAX_PATHS:
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                if not (is_folder and entry.name in HEAVY) and (is_folder or entry.is_file()):
                    found.append((entry.name, is_folder))
    except OSError:
        return []
    return sorted(found, key=lambda item: (item[1], item[0].lower()))


# Fuzzy matching.


def matches(wanted: str, paths: Sequence[str], most: int) -> list[str]:
    """The paths that have the characters of `wanted` in their order, the best first.

    Better is: in the name before in the folders, together before scattered, at a word's beginning, short.
    """
    return ranked(wanted, narrowed(wanted, paths), most)


def narrowed(wanted: str, paths: Sequence[str]) -> list[str]:
    """The paths that match at all. What matches a longer text matches its beginning too: search on in these."""
    characters = wanted.lower().replace(" ", "")
    found = []
    for number, path in enumerate(paths):
        if number % PATHS_AT_ONCE == 0:
            time.sleep(0)  # the screen's thread need not wait for its turn
        if _scattered(characters, path.lower()):
            found.append(path)
    return found


def ranked(wanted: str, paths: Sequence[str], most: int) -> list[str]:
    """Paths that match, the best first."""
    characters = wanted.lower().replace(" ", "")
    scored = []
    for number, path in enumerate(paths):
        if number % PATHS_AT_ONCE == 0:
            time.sleep(0)
        scored.append((_score(characters, path), path))
    return [path for _, path in heapq.nsmallest(most, scored)]


def _score(wanted: str, path: str) -> tuple[int, int, int]:
    """Of a path that matches: the smaller the better."""
    text = path.lower()
    if not wanted:
        return 0, text.count("/"), len(text)
    start = text.rstrip("/").rfind("/") + 1
    name = text[start:]
    if name.startswith(wanted):
        rank = 0
    elif (at := name.find(wanted)) >= 0:
        rank = 2 if name[at - 1].isalnum() else 1
    elif wanted in text:
        rank = 3
    else:
        rank = 4 if _scattered(wanted, name) else 5
    return rank, text.count("/"), len(text)


def _scattered(wanted: str, text: str) -> bool:
    at = -1
    for character in wanted:
        at = text.find(character, at + 1)
        if at < 0:
            return False
    return True
