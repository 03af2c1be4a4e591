"""Walking folders of which nothing is known: bounded in depth and number, links not followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.common.split_names import split_part

MAX_ENTRIES = 20_000
MODELS_DEPTH = 9
"""Folders below the models folder: a repository's owner and name, and seven of its own."""


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


def models_below(folder: Path, max_depth: int = MODELS_DEPTH) -> Iterator[Path]:
    """GGUF files below `folder`, of a split model the first."""
    for path in files_below(folder, max_depth):
        part = split_part(path.name)
        if path.name.endswith(".gguf") and (part is None or part.number == 1):
            yield path
