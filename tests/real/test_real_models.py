"""Models with real weights: our logits are faithful, and greedy replies are llama.cpp's token for token.

`make test-real` runs these; `make test` does not look in here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evaluation.float32 import float32_logits
from engine.evaluation.llama_cpp_reference import LlamaCppReference
from engine.evaluation.verify import verify
from engine.gguf.file import GGUFFile
from engine.protocol import Message
from engine.runtimes.native import NativeRuntime
from engine.spec.reader import read_spec
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Tokenizer
from kernels.cpu.cores import default_threads
from kernels.ops import Floats

sys.path.append(str(Path(__file__).parents[2] / "packaging"))
from real_files import GEMMA3, SMOLLM2, RealFile, fetch

FILES = (pytest.param(SMOLLM2, id="smollm2"), pytest.param(GEMMA3, id="gemma3"))
QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain what a prime number is.",
    "Write a Python function that adds two numbers.",
    "List three uses of salt.",
    "Who wrote Hamlet?",
)
REPLY = 32
"""Tokens of a reply."""

NEAR = 6.0
"""Two logits this near to each other, in llama.cpp's root mean square error at that position, are a near tie.

A difference of two logits has sqrt(2) times the error of one; four times that is beyond chance.
"""


@pytest.mark.parametrize("file", FILES)
def test_it_is_faithful(file: RealFile) -> None:
    result = verify(fetch(file))
    assert result.faithful, result.verdict
    assert result.ours.total.top1 > 0.9


@pytest.mark.parametrize("file", FILES)
def test_greedy_replies_are_llama_cpps(file: RealFile) -> None:
    path, threads = fetch(file), default_threads()
    with GGUFFile.open(path) as opened:
        spec = read_spec(opened)
        assert spec.native
        prompts = list(_prompts(path, opened))
        context = max(map(len, prompts)) + REPLY
        with closing(NativeRuntime.load(opened, spec, context, threads)) as runtime:

            def ours(tokens: list[int], start: int) -> Floats:
                return runtime.forward(tokens[runtime.begin(tokens) :])

            replies = [_greedy(prompt, ours) for prompt in prompts]
        with LlamaCppReference(path, context, threads=threads, flash=False) as reference:

            def theirs(tokens: list[int], start: int) -> Floats:
                if not start:
                    reference.clear()
                return reference.forward(tokens[start:])

            same = 0
            for prompt, reply in zip(prompts, replies, strict=True):
                other = _greedy(prompt, theirs)
                alike = _alike(reply, other)
                same += alike
                if alike < REPLY:
                    text = prompt + reply[:alike]
                    (exact,) = float32_logits(opened, spec, [text])
                    error = np.std(theirs(text, 0) - exact[-1])
                    gap = abs(float(exact[-1, reply[alike]] - exact[-1, other[alike]]))
                    assert gap < NEAR * error, f"no near tie: {reply} is not {other} at {alike}"
    assert same >= REPLY * len(prompts) / 2, "too little was compared"


def _prompts(path: Path, file: GGUFFile) -> Iterator[list[int]]:
    with closing(Tokenizer.open(path, file)) as tokenizer, closing(ChatTemplate(file)) as template:
        for question in QUESTIONS:
            yield tokenizer.encode(template.render([Message("user", question)]))


def _greedy(prompt: list[int], forward: Callable[[list[int], int], Any]) -> list[int]:
    """The reply's tokens; `forward` gets all tokens, and from where on they are new."""
    tokens, start = list(prompt), 0
    for _ in range(REPLY):
        logits = forward(tokens, start)
        start = len(tokens)
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :]


def _alike(first: list[int], second: list[int]) -> int:
    """Tokens in which two replies agree from their start."""
    return next(
        (i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]),
        len(first),
    )
