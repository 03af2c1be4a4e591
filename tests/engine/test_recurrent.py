"""Recurrent layers and windows: a turn that goes on, goes back or begins again says what one from nothing would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer
from engine.runtimes.native import PAGE_SIZE, NativeRuntime, pages_for
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.ops import Floats
from kernels.reference import ReferenceOps
from tests.support.fidelity import nmse
from tests.support.tiny import tiny_model

RNG = np.random.default_rng(5)
SYSTEM, QUESTION, REPLY, MORE = (RNG.integers(0, 250, n).tolist() for n in (530, 40, 25, 30))
VARIANTS = [
    *(("qwen35moe", "qwen35moe"), ("qwen3next", "qwen3next"), ("qwen35", "qwen35")),
    *(("gpt-oss", "gpt-oss"), ("gpt-oss", "narrow")),
    *(("gemma3", "gemma3"), ("gemma4", "gemma4")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recurrent")


@contextmanager
def runtime(
    path: Path, ops: Any, slots: int = 8, context: int = 1024, chunk: int = 512
) -> Iterator[NativeRuntime]:
    with GGUFFile.open(path) as file:
        pages = pages_for(context)
        model: Transformer[Any, Any, Any] = Transformer(
            file, read_spec(file), ops, pages, PAGE_SIZE, slots=slots, chunk=chunk
        )
        yield NativeRuntime(model, context, pages, [])


def read(
    runtime: NativeRuntime, prompt: list[int], marks: tuple[int, ...] = ()
) -> tuple[int, Floats]:
    """How many tokens were cached, and the logits behind the prompt."""
    cached = done = runtime.begin(prompt, marks)
    logits = runtime.logits if done == len(prompt) else None
    while done < len(prompt):
        chunk = prompt[done : done + runtime.chunk]
        logits = runtime.forward(chunk).copy()
        done += len(chunk)
    assert logits is not None
    return cached, logits


def decode(runtime: NativeRuntime, tokens: list[int]) -> None:
    for token in tokens:
        runtime.forward([token])


@pytest.mark.parametrize(
    ("architecture", "variant"), [("qwen35moe", "qwen35moe"), ("gpt-oss", "narrow")]
)
def test_longer_chunks_say_the_same_and_go_back_to_their_ends(
    architecture: str, variant: str, folder: Path
) -> None:
    path, ops = tiny_model(architecture, folder, variant=variant, expert_type="F32"), CpuOps(2)
    prompt = RNG.integers(0, 250, 1400).tolist()
    branch = [*prompt[:1300], *MORE]
    with (
        runtime(path, ops, context=2048) as short,
        runtime(path, ops, context=2048, chunk=1024) as long,
    ):
        assert (short.chunk, long.chunk) == (512, 1024)
        for tokens, cached in (
            (prompt, (0, 0)),
            (branch, (1024, 1024)),
            (prompt[:800] + MORE, (512, 0)),
        ):
            wanted, found = read(short, tokens), read(long, tokens)
            assert (wanted[0], found[0]) == cached
            assert nmse(found[1], wanted[1]) < 1e-6
            decode(short, REPLY)
            decode(long, REPLY)
    ops.close()


@pytest.mark.parametrize(("architecture", "variant"), VARIANTS, ids=lambda name: name)
@pytest.mark.parametrize("native", [False, True], ids=["reference", "cpu"])
def test_turns_edits_and_regeneration(
    architecture: str, variant: str, native: bool, folder: Path
) -> None:
    path = tiny_model(architecture, folder, variant=variant, expert_type="F32")
    ops: Any = CpuOps(2) if native else ReferenceOps()
    ends = len(SYSTEM), len(SYSTEM) + len(QUESTION)
    prompt = SYSTEM + QUESTION
    turns = {
        "first": (prompt, ends, 0),
        "regenerated": (prompt, ends, len(prompt)),
        "second": (prompt + REPLY + MORE, (len(prompt), len(prompt + REPLY)), len(prompt + REPLY)),
        "reply written otherwise": (prompt + REPLY[5:] + MORE, ends, len(prompt)),
        "edited": (SYSTEM + MORE, ends[:1], len(SYSTEM)),
        "cut inside the system message": ([*SYSTEM[:520], *MORE], (), 512),
        "something else": (MORE + QUESTION, (), 0),
        "back again": (prompt + REPLY + MORE + REPLY + [3], (), len(prompt + REPLY + MORE + REPLY)),
    }
    replies = {"first": REPLY, "regenerated": REPLY, "second": REPLY}
    with runtime(path, ops, slots=16) as talking:
        for name, (tokens, marks, expected) in turns.items():
            cached, logits = read(talking, tokens, marks)
            assert cached == expected, name
            with runtime(path, ops, slots=1) as fresh:
                _, whole = read(fresh, tokens)
            error = np.square(logits - whole).mean() / np.square(whole).mean()
            assert error < (1e-6 if native else 1e-9), name
            decode(talking, replies.get(name, []))


def test_a_state_of_another_position_is_refused(folder: Path) -> None:
    path = tiny_model("qwen35", folder)
    with runtime(path, ReferenceOps()) as talking:
        talking.begin([1, 2, 3])
        talking.forward([1, 2, 3])
        with pytest.raises(ValueError, match="is that of 3, not of 2"):
            talking._model.forward(np.array([4], np.int32), np.array([0], np.int32), 2)


def test_after_a_pass_that_failed_the_state_is_not_gone_on_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model("qwen35", folder)
    with runtime(path, ReferenceOps()) as talking, runtime(path, ReferenceOps()) as fresh:
        _, wanted = read(fresh, QUESTION)
        read(talking, QUESTION[:20])
        layer = talking._model.stages[0]._layers[-1]

        def fails(*arguments: Any) -> Any:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(layer, "run", fails)
            with pytest.raises(MemoryError):
                talking.forward(QUESTION[20:])
        cached, logits = read(talking, QUESTION)
        assert cached < 20 and np.allclose(logits, wanted, atol=1e-4)
