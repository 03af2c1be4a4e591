"""LaTeX's formulas as one line of Unicode, where they have one.

A formula that has none (matrices, fractions within fractions within fractions, commands that are not known) is None: the source
is more readable than a guess. Symbols and scripts are unicodeit's. Time is linear in the source, which is bounded.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ktchat.common.text import sanitise
from ktchat.widgets.chat.latex_commands import (
    ALPHABETS,
    CLOSE,
    ENDS,
    FUNCTIONS,
    LITERAL,
    MORE,
    NOTHING,
    ODD,
    SPACES,
    UPRIGHT,
)

MAX_SOURCE = 2_000
"""Characters of a formula that is looked at."""

MAX_DEPTH = 12
"""Groups within groups."""

MAX_FRACTIONS = 2
"""Fractions within fractions."""

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\s+|.", re.DOTALL)


class _NoUnicodeError(Exception):
    """There is no line for this."""


@lru_cache(maxsize=1024)
def unicode_of(source: str) -> str | None:
    """What stands between the delimiters as one line; None where that is not possible."""
    if len(source) > MAX_SOURCE:
        return None
    try:
        line = _Reader(_TOKEN.findall(source.strip())).sequence("", 0, 0)
    except _NoUnicodeError:
        return None
    line = re.sub(r" {4,}", "   ", sanitise(line)).strip()
    return line or None


class _Reader:
    """Reads tokens from the left to the right."""

    def __init__(self, tokens: list[str]) -> None:
        from unicodeit import data  # type: ignore[import-untyped]  # a table of thousands, wanted with the first formula

        self._tokens, self._at = tokens, 0
        self._symbols: dict[str, str] = _table(data)
        self._marks = dict(data.COMBININGMARKS)
        self._scripts = {k: v for k, v in data.SUBSUPERSCRIPTS if k[1] not in ODD}

    def sequence(self, end: str, depth: int, fractions: int) -> str:
        """All up to the token `end`, or up to the end of the source."""
        if depth > MAX_DEPTH:
            raise _NoUnicodeError
        parts: list[str] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token == end:
                return "".join(parts)
            if token.isspace():
                parts.append(" " if parts and parts[-1][-1:] not in CLOSE else "")
                continue
            part = self._item(token, depth, fractions)
            if parts and self._is_operator(token, part) and self._spaced():
                parts.append("" if parts[-1].endswith(" ") else " ")
            elif parts and token[1:] in FUNCTIONS and parts[-1][-1:].isalnum():
                parts.append(" ")
            parts.append(part)
            if token[1:] in FUNCTIONS and self._peek()[:1].isalnum():
                parts.append(" ")
        if end:
            raise _NoUnicodeError
        return "".join(parts)

    def _item(self, token: str, depth: int, fractions: int) -> str:
        if token == "{":
            return self.sequence("}", depth + 1, fractions)
        if token in "}&" or token in (r"\\", r"\begin", r"\end"):
            raise _NoUnicodeError
        if token in "^_":
            return self._script(token, self._argument(depth, fractions))
        if token in NOTHING:
            if token in (r"\left", r"\right") and self._peek() == ".":
                self._at += 1
            return ""
        if token in (r"\frac", r"\dfrac", r"\tfrac"):
            return self._fraction(depth, fractions)
        if token == r"\sqrt":
            return self._root(depth, fractions)
        if token in UPRIGHT:
            return self._argument(depth, fractions, text=token.startswith((r"\text", r"\mbox")))
        if token in ALPHABETS:
            return self._in_alphabet(token, self._argument(depth, fractions))
        if token in self._marks or token == r"\widehat" or token == r"\widetilde":
            return self._accent(token.replace("wide", ""), self._argument(depth, fractions))
        if token == r"\not":
            return f"{self._argument(depth, fractions)}\u0338"
        return self._symbol(token)

    def _symbol(self, token: str) -> str:
        if token in SPACES:
            return SPACES[token]
        if token in LITERAL:
            return LITERAL[token]
        if token[0] != "\\":
            return token
        if token[1:] in FUNCTIONS:
            return token[1:]
        symbol = MORE.get(token) or self._symbols.get(token)
        if not symbol:
            raise _NoUnicodeError
        return symbol

    def _argument(self, depth: int, fractions: int, *, text: bool = False) -> str:
        """The group or token that a command takes; `text`: its spaces stand, and its signs mean nothing."""
        while self._peek().isspace():
            self._at += 1
        token = self._peek()
        if not token or token in "}^_&":
            raise _NoUnicodeError
        self._at += 1
        if text and token == "{":
            start, level = self._at, 1
            while level:
                token = self._peek()
                if not token:
                    raise _NoUnicodeError
                level += {"{": 1, "}": -1}.get(token, 0)
                self._at += 1
            inside = self._tokens[start : self._at - 1]
            if any(
                part[0] == "\\" and part not in LITERAL and part not in SPACES for part in inside
            ):
                raise _NoUnicodeError
            return "".join(part.lstrip("\\") for part in inside)
        return self._item(token, depth + 1, fractions)

    def _script(self, sign: str, text: str) -> str:
        small = [self._scripts.get(sign + char) for char in text]
        if text and all(small):
            return "".join(part for part in small if part)
        if text == "′" or (sign == "^" and text in ("∘", "°")):
            return "°" if text != "′" else text
        return f"{sign}{text}" if len(text) == 1 else f"{sign}({text})"

    def _fraction(self, depth: int, fractions: int) -> str:
        if fractions >= MAX_FRACTIONS:
            raise _NoUnicodeError
        above = self._argument(depth, fractions + 1).strip()
        below = self._argument(depth, fractions + 1).strip()
        if len(above) == len(below) == 1 and (
            one := self._symbols.get(rf"\sfrac{{{above}}}{{{below}}}")
        ):
            return one
        line = f"{_bracketed(above)}/{_bracketed(below)}"
        return line if self._ends_here() else f"({line})"

    def _root(self, depth: int, fractions: int) -> str:
        degree = ""
        if self._peek() == "[":
            self._at += 1
            degree = self._script("^", self.sequence("]", depth + 1, fractions))
            if degree.startswith("^"):
                raise _NoUnicodeError
        text = self._argument(depth, fractions).strip()
        return f"{degree}√{text if len(text) == 1 or text.isdigit() else f'({text})'}"

    def _in_alphabet(self, command: str, text: str) -> str:
        """Characters of another alphabet; bold ones stay as they are where Unicode has none."""
        bold = command in (r"\boldsymbol", r"\bm", r"\textbf")
        name = r"\mathbf" if bold else command
        characters = [
            self._symbols.get(f"{name}{{{char}}}", char if name == r"\mathbf" else "")
            for char in text
        ]
        if not all(characters):
            raise _NoUnicodeError
        return "".join(characters)

    def _accent(self, command: str, text: str) -> str:
        if len(text) != 1 and command not in (r"\overline", r"\underline"):
            raise _NoUnicodeError
        return "".join(char + self._marks[command] for char in text)

    def _ends_here(self) -> bool:
        """Whether what follows cannot be read as a part of the denominator."""
        rest = (token for token in self._tokens[self._at : self._at + 3] if not token.isspace())
        token = next(rest, "")
        symbol = self._symbols.get(token, "")
        relation = len(symbol) == 1 and unicodedata.category(symbol) == "Sm" and symbol not in "⋅×∗"
        return token in ENDS or relation

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _spaced(self) -> bool:
        return self._peek().isspace()

    def _is_operator(self, token: str, part: str) -> bool:
        return token[0] == "\\" and len(part) == 1 and unicodedata.category(part) == "Sm"


def _bracketed(text: str) -> str:
    """Part of a fraction: in brackets unless it is one thing."""
    plain = re.fullmatch(r"[\w.′\u0300-\u036f⁰-ₜ²³¹√|]+|\([^()]*\)", text)
    return text if plain else f"({text})"


@lru_cache(maxsize=1)
def _table(data: object) -> dict[str, str]:
    return dict(data.REPLACEMENTS)  # type: ignore[attr-defined]
