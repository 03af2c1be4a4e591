"""Walking folders of which nothing is known: bounded in depth and number, links not followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MAX_ENTRIES = 20_000


def files_below(folder: Path, max_depth: int) -> Iterator[Path]:
    """Everything below `folder` that is no folder, in order of name within each."""
    budget = MAX_ENTRIES
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        try:
            with os.scandir(here) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        budget -= len(children)
        if budget < 0:
            return
        for entry in children:
            if not entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            elif depth < max_depth:
                waiting.append((Path(entry.path), depth + 1))
