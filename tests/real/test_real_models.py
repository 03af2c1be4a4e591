"""Models with real weights: our logits are faithful, and greedy replies are llama.cpp's token for token.

`make test-real` runs these; `make test` does not look in here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

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
def test_greedy_tokens_are_llama_cpps(file: RealFile) -> None:
    """Behind every token of llama.cpp's replies: a near tie that falls otherwise ends no comparison."""
    path, threads = fetch(file), default_threads()
    with GGUFFile.open(path) as opened:
        spec = read_spec(opened)
        assert spec.native
        prompts = list(_prompts(path, opened))
        context = max(map(len, prompts)) + REPLY + 1
        with LlamaCppReference(path, context, threads=threads, flash=False) as reference:
            replies = [_greedy(prompt, reference) for prompt in prompts]
        with closing(NativeRuntime.load(opened, spec, context, threads)) as runtime:
            chosen = [
                [_choice(runtime, prompt + reply[:at]) for at in range(REPLY)]
                for prompt, (reply, _) in zip(prompts, replies, strict=True)
            ]
        same = 0
        for prompt, (reply, rows), ours in zip(prompts, replies, chosen, strict=True):
            parting = [at for at in range(REPLY) if ours[at] != reply[at]]
            same += REPLY - len(parting)
            if not parting:
                continue
            (exact,) = float32_logits(opened, spec, [prompt + reply[:-1]])
            for at in parting:
                row = exact[len(prompt) - 1 + at]
                error, gap = np.std(rows[at] - row), abs(float(row[ours[at]] - row[reply[at]]))
                assert gap < NEAR * error, f"no near tie: {ours[at]} is not {reply[at]} at {at}"
    assert same >= 0.8 * REPLY * len(prompts), "that many near ties are none"


def _prompts(path: Path, file: GGUFFile) -> Iterator[list[int]]:
    with closing(Tokenizer.open(path, file)) as tokenizer, closing(ChatTemplate(file)) as template:
        for question in QUESTIONS:
            yield tokenizer.encode(template.render([Message("user", question)]))


def _greedy(prompt: list[int], reference: LlamaCppReference) -> tuple[list[int], list[Floats]]:
    """The reply's tokens, and the logits behind which each was chosen."""
    reference.clear()
    reply: list[int] = []
    rows = [reference.forward(prompt)]
    while len(reply) < REPLY:
        reply.append(int(rows[-1].argmax()))
        rows.append(reference.forward(reply[-1:]))
    return reply, rows[:REPLY]


def _choice(runtime: NativeRuntime, tokens: list[int]) -> int:
    """The most likely token behind these."""
    return int(runtime.forward(tokens[runtime.begin(tokens) :]).argmax())
