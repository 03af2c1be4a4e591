"""The marks that models put around their reasoning and around their reply, by family.

A mark may be made of control tokens (atoms) and text. Where the vocabulary has an atom as a token, only
that token counts: the same characters in other tokens are something that the model talks about.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands before and after reasoning."""

    opening: str
    closing: str
    gap: str = ""
    """What comes between the closing mark and the reply, where marks stand on lines of their own."""
    answer: str = ""
    """The mark that begins the reply."""
    silent: tuple[str, ...] = ()
    """Marks inside and behind the reply."""


STYLES: tuple[Marks, ...] = (
    Marks("<think>", "</think>", gap="\n\n"),
    Marks("<thinking>", "</thinking>", gap="\n\n"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<mm:think>", "</mm:think>"),
    Marks("<think:opensource>", "</think:opensource>"),
    Marks("<|channel>thought", "<channel|>"),
    Marks(
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|>",
        answer="<|open|>response<|sep|>",
        silent=("<|close|>response<|sep|>", "<|close|>message<|sep|>"),
    ),
    Marks(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        answer="<|START_TEXT|>",
        silent=("<|END_TEXT|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
)
"""Qwen3 and later, DeepSeek, GLM, MiniMax-M2, Kimi-K2, Step, MiMo, Nemotron; older prompts; Magistral and
Ministral; Seed-OSS; MiniMax-M3; Hunyuan 3; Gemma 4; Kimi-K3; Command."""

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
END, RETURN, CALL = "<|end|>", "<|return|>", "<|call|>"
HARMONY = (START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL)
"""gpt-oss: a message is a header, `<|message|>`, its text and an end (`engine.text.harmony`)."""

_ATOM = re.compile(r"<[^<>\s]+>|\[/?THINK\]")


def _atoms() -> frozenset[str]:
    marks = [
        text
        for style in STYLES
        for text in (style.opening, style.closing, style.answer, *style.silent)
    ]
    return frozenset(atom for mark in [*marks, *HARMONY] for atom in _ATOM.findall(mark))


ATOMS = _atoms()
"""Texts of the tokens that can be part of a mark."""


class Alphabet:
    """Text in which the tokens that are marks stay apart from text with the same characters.

    Each atom that the vocabulary has as a token becomes one lone surrogate, which no decoded text holds.
    """

    def __init__(self, tokens: Collection[str] = ()) -> None:
        """`tokens` are the atoms that the vocabulary has."""
        ordered = sorted(ATOMS.intersection(tokens))
        self._codes = {atom: chr(0xDC00 + number) for number, atom in enumerate(ordered)}
        self._texts = {ord(code): _shown(atom) for atom, code in self._codes.items()}
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def token(self, text: str) -> str:
        """The code of a token with this text; the text itself when it is no atom."""
        return self._codes.get(text, text)

    def coded(self, mark: str) -> str:
        """A mark, or text of a template: its atoms are tokens wherever the vocabulary has them."""
        if self._pattern is None:
            return mark
        return self._pattern.sub(lambda match: self._codes[match[0]], mark)

    def plain(self, text: str) -> str:
        """What is to be read of coded text: a tag is its characters, other control tokens are nothing."""
        return text.translate(self._texts)


def _shown(atom: str) -> str:
    return "" if "|" in atom else atom


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that begins `mark`, and is not all of it."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
