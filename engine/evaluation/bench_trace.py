"""A traced prefill and a few traced tokens of a runtime: what `ktchat bench --trace` measures.

A token is sampling, building arguments, native calls and logits. A conversation's text (its pieces,
the pipe, the screen) is not traced.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from engine.evaluation.trace import PYTHON, TOKEN, Trace
from engine.generation.sampling import Sampler
from engine.protocol import Sampling
from engine.runtimes.base import Floats

TOKENS = 8
"""Decoded tokens that are traced."""
WARM_UP = 2
"""Tokens decoded before them, which are not: threads wake, and buffers come back into caches."""
SPARE = WARM_UP + TOKENS
"""Room that they need in the context after the prompt."""

SAMPLE = "sample"


class Watched(Protocol):
    """A runtime that says what it does."""

    chunk: int

    def begin(self, tokens: Sequence[int]) -> int:
        """As `engine.runtimes.base.Runtime` says."""
        ...

    def forward(self, tokens: Sequence[int]) -> Floats:
        """As `engine.runtimes.base.Runtime` says."""
        ...

    def watch(self, trace: Trace | None) -> None:
        """Ops and device work go into `trace` from now on; None ends that."""
        ...


def traced(runtime: Watched, tokens: Sequence[int], prompt: int) -> Trace:
    """The first chunk of a prompt of `prompt` tokens, and the last `TOKENS` of `tokens` one by one.

    The runtime's cache must not know how `tokens` begin.
    """
    trace = Trace()
    cached = runtime.begin(tokens)
    assert cached == 0, "a prompt in the prefix cache would be traced as if it were read"
    first = min(prompt, runtime.chunk)
    runtime.watch(trace)
    try:
        start = time.perf_counter_ns()
        runtime.forward(tokens[:first])
        trace.span(PYTHON, "prefill", start, time.perf_counter_ns(), tokens=first)
    finally:
        runtime.watch(None)
    before = len(tokens) - SPARE
    for done in range(first, before, runtime.chunk):
        runtime.forward(tokens[done : min(done + runtime.chunk, before)])
    for token in tokens[before : before + WARM_UP]:
        logits = runtime.forward([token])
    sampler = Sampler(Sampling(seed=0))
    sampler.next(logits)
    forwards: list[tuple[int, int]] = []
    runtime.watch(trace)
    try:
        for position in range(before + WARM_UP, len(tokens)):
            # The token that is sampled is not the one that follows: those are drawn evenly.
            start = time.perf_counter_ns()
            sampler.next(logits)
            sampled = time.perf_counter_ns()
            logits = runtime.forward([tokens[position]])
            end = time.perf_counter_ns()
            trace.span(PYTHON, TOKEN, start, end, position=position)
            trace.span(PYTHON, SAMPLE, start, sampled)
            forwards.append((sampled, end))
    finally:
        runtime.watch(None)
    _divide(trace, forwards)
    return trace


def _divide(trace: Trace, forwards: Sequence[tuple[int, int]]) -> None:
    """What Python does before the first work of each forward pass, and after the last."""
    work = trace.work()
    for start, end in forwards:
        inside = [(a, b) for a, b in work if start <= a and b <= end]
        if inside:
            called, returned = inside[0][0], inside[-1][1]
            trace.span(PYTHON, "arguments", start, called)
            trace.span(PYTHON, "native call", called, returned)
            trace.span(PYTHON, "logits", returned, end)
