"""What an `@` in the prompt may mean: files below the working folder, the last used ones, a path that is typed out.

Everything blocks, within bounds: call it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ktchat.attachments.finding import below, matches, narrowed, ranked

MOST = 50
MAX_ENTRIES = 5000


@dataclass(frozen=True, slots=True)
class Found:
    """One file or folder."""

    path: str
    """Where it is."""
    typed: str
    """As it is written behind the `@`; that of a folder ends with a slash."""
    recent: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return self.typed.endswith("/")


class Index:
    """What is below the working folder, as it was when this was made."""

    def __init__(self) -> None:
        try:
            self._folder: Path | None = Path.cwd()
            self._files = list(below(self._folder))
        except OSError:  # the working folder is gone
            self._folder, self._files = None, []
        self._narrowed = ("", self._files)  # what was looked for last, and what matches it

    def complete(self, wanted: str, recent: Sequence[str]) -> list[Found]:
        """The likeliest meanings, the best first."""
        if wanted.startswith(("/", "~", "./", "../")):
            return _typed_out(wanted)
        used = [path for path in matches(wanted, recent, 5) if Path(path).exists()]
        found = [Found(path, path, recent=True) for path in used]
        before, files = self._narrowed
        if not wanted.startswith(before):
            files = self._files
        self._narrowed = wanted, narrowed(wanted, files)
        for path in ranked(wanted, self._narrowed[1], MOST):
            whole = str((self._folder or Path()) / path)
            if whole not in used:
                found.append(Found(whole, path))
        return found


def _typed_out(wanted: str) -> list[Found]:
    """What is in the folder that is typed, beginning with what stands behind its last slash."""
    if wanted == "~":
        wanted = "~/"
    folder, _, start = wanted.rpartition("/")
    shown = f"{folder}/"
    try:
        place = Path(shown).expanduser()
        with os.scandir(place) as entries:
            names = [
                entry.name + ("/" if entry.is_dir() else "")
                for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)
                if entry.name.isprintable()
                and (start.startswith(".") or not entry.name.startswith("."))
            ]
    except (OSError, RuntimeError, ValueError):
        return []
    return [Found(str(place / name), shown + name) for name in matches(start, names, MOST)]
