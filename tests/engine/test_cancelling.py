"""A prompt that is given up in the middle of a chunk leaves a runtime that answers as if it had never begun."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.gguf.file import GGUFFile
from engine.runtimes.base import CancelFlag, CancelledError
from engine.runtimes.native import NativeRuntime
from engine.spec.reader import read_spec
from tests.support.tiny import tiny_model

FIRST = [3 + i % 90 for i in range(40)]
PROMPT = FIRST + [5 + i % 80 for i in range(400)]


@pytest.mark.parametrize("architecture", ["qwen3moe", "deepseek2", "qwen35moe", "gpt-oss"])
def test_given_up_at_any_moment(architecture: str, tmp_path: Path) -> None:
    flag = CancelFlag()
    with (
        GGUFFile.open(tiny_model(architecture, tmp_path)) as file,
        closing(NativeRuntime.load(file, read_spec(file), 1024, 2)) as runtime,
    ):
        runtime.watch_for(flag)
        runtime.begin(PROMPT, [len(FIRST)])
        begin = time.perf_counter()
        expected = runtime.forward(PROMPT).copy()
        whole = time.perf_counter() - begin
        given_up = 0
        for trial in range(12):
            other = [7 + trial, *FIRST]  # forgets nothing of the first, and shares nothing with it
            runtime.begin(other)
            runtime.forward(other)
            runtime.begin([2, *PROMPT])
            raising = threading.Timer(whole * trial / 8, flag.set)
            raising.start()
            if trial == 0:  # surely in time, however slow the hour
                raising.join()
            try:
                runtime.forward([2, *PROMPT])
            except CancelledError:
                given_up += 1
            raising.join()
            flag.clear()
            done = runtime.begin(PROMPT, [len(FIRST)])
            again = runtime.logits if done == len(PROMPT) else runtime.forward(PROMPT[done:])
            assert again is not None
            assert np.abs(again - expected).max() <= 1e-4 * np.abs(expected).max()
        assert given_up
        runtime.begin([4, *FIRST])
        runtime.forward(FIRST)
        flag.set()
        runtime.forward([5])  # a single token is not given up: its reply goes on from here
        with pytest.raises(CancelledError):
            runtime.forward([6, 7])
