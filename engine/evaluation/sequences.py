"""What models read while they are verified: sequences of text and of random tokens, drawn by a seed.

A sequence's number and the seed give all of it, so that a later round goes on where the one before it ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.evaluation.passages import PASSAGES
from engine.text.tokenizer import Part, Tokenizer

LENGTH = 160
"""Tokens in a sequence."""
STEPS = 32
"""Of them, those at its end that are decoded one by one, as a reply is."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens, and how many of them are read at once; the rest is decoded one by one."""

    tokens: list[int]
    prompt: int


def draw(tokenizer: Tokenizer, seed: int, numbers: Iterable[int], context: int) -> list[Sequence]:
    """Sequences of `LENGTH` tokens, or of `context` where that is less: texts and random tokens in turns."""
    length = min(LENGTH, context)
    prompt = max(1, length - STEPS)
    drawn = [np.resize(_tokens(tokenizer, seed, number), length).tolist() for number in numbers]
    return [Sequence(tokens, prompt) for tokens in drawn]


def _tokens(tokenizer: Tokenizer, seed: int, number: int) -> list[int]:
    rng = np.random.default_rng([seed, number])
    if number % 2:
        start = [tokenizer.bos] if tokenizer.adds_bos and tokenizer.bos is not None else []
        return [*start, *rng.integers(0, tokenizer.vocab_size, LENGTH).tolist()]
    text = "\n\n".join(PASSAGES[i] for i in rng.permutation(len(PASSAGES)))
    return tokenizer.encode([Part(text, special=False)])
