"""What doctor hears of a GPU that was tried: also when the trying fails."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest

from engine.machine import gpu_trial
from engine.machine.gpu_trial import GpuFacts, ask, read

CARD = GpuFacts("RTX 4090", "stream memory operations", "flashinfer", 920.0, 24.1)


def test_what_the_process_says_is_read() -> None:
    assert read(0, "a library's greeting\n" + json.dumps([asdict(CARD)]) + "\n", "") == [CARD]


@pytest.mark.parametrize(
    ("status", "said", "log", "words"),
    [
        (1, "", "Traceback\nImportError: no torch", "no torch"),
        (-11, "", "", "status -11"),
        (0, "", "", "status 0"),
        (0, "[]", "", "torch sees no CUDA device"),
        (0, '[{"surprise": 1}]', "", "status 0"),
        (0, "not json", "an error happened", "an error happened"),
    ],
)
def test_a_failure_is_an_answer(status: int, said: str, log: str, words: str) -> None:
    (facts,) = read(status, said, log)
    assert words in facts.error


def test_a_process_that_fails_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (facts,) = ask()
    assert "status 1" in facts.error


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_trial, "SECONDS", 0.01)
    (facts,) = ask()
    assert "did not answer" in facts.error
