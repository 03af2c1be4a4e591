"""A small grammar of sentences: one line stands for many wordings.

`(a|b|c)` picks one alternative (an empty one is allowed), `{word}` picks one wording of a word class,
and a `{slot}` for which the caller gives a value is filled with it. Nothing else is special.
Knows nothing of topics or conversations.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_GROUP = re.compile(r"\(([^()]*)\)")
_CLASS = re.compile(r"\{(\w+)\}")


class Grammar:
    """Expands lines with the word classes of words.toml."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        self.classes = classes

    def expand(self, line: str, rng: random.Random, values: Mapping[str, str] | None = None) -> str:
        """One wording of `line`; `values` fills slots such as {name} and wins over word classes."""
        given = values or {}

        def word(match: re.Match[str]) -> str:
            name = match[1]
            if name in given:
                return match[0]
            return rng.choice(self.classes[name])

        previous = ""
        while previous != line:
            previous = line
            line = _CLASS.sub(word, line)
            line = _GROUP.sub(lambda match: rng.choice(match[1].split("|")), line)
        line = _CLASS.sub(lambda match: given[match[1]], line)
        return re.sub(r" +", " ", line).strip()
