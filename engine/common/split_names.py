"""File names of split models: `NAME-00001-of-00003.gguf`, as llama.cpp's gguf-split writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a split model; `number` counts from 1."""

    stem: str
    number: int
    count: int
    suffix: str = ".gguf"

    def name(self, number: int) -> str:
        """The file name of another part."""
        return f"{self.stem}-{number:05}-of-{self.count:05}{self.suffix}"


def split_part(name: str) -> Part | None:
    """What a file name or path says of its part; None when it names no part of a split model."""
    match = _PART.fullmatch(name)
    return Part(match[1], int(match[2]), int(match[3]), match[4]) if match else None
