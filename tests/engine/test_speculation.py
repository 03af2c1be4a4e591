"""Prompt lookup changes no reply: with drafts at every token, as with none; what is drafted wrongly leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.evaluation.fidelity import ALLOWED
from engine.generation.decoder import reply
from engine.generation.draft_control import SIZES
from engine.generation.loading import load_model
from engine.generation.prompt_lookup import History
from engine.generation.sampling import Sampler
from engine.gguf.file import GGUFFile
from engine.model.transformer import Transformer
from engine.protocol import (
    Event,
    Finished,
    Generate,
    Load,
    Message,
    Prefilled,
    Sampling,
    Text,
    Thinking,
)
from engine.runtimes.base import CancelFlag, Model
from engine.runtimes.native import PAGE_SIZE, NativeRuntime, pages_for
from engine.spec.reader import read_spec
from kernels.cpu import CpuOps
from kernels.ops import Floats
from kernels.reference import ReferenceOps
from tests.support.fake_runtime import FakeRuntime, eager, fake_model
from tests.support.fidelity import nmse
from tests.support.tiny import quantise, tiny_model
from tests.support.tiny_shapes import SHAPES

RNG = np.random.default_rng(3)
PHRASE = RNG.integers(0, 250, 12).tolist()
PROMPT = [*PHRASE, *RNG.integers(0, 250, 30).tolist(), *PHRASE[:5]]
MODELS = [
    *(("qwen3moe", ""), ("llama", "dense"), ("deepseek2", "v2-lite")),
    *(("gpt-oss", "narrow"), ("gemma3", "")),  # windows
]


def ask(
    model: Model, text: str, limit: int | None = None, **sampling: float
) -> tuple[list[Event], list[int]]:
    """The events of a reply, and the runtime's tokens behind it."""
    events: list[Event] = []
    chosen = Sampling(**{"temperature": 0.0, **sampling})  # type: ignore[arg-type]
    reply(model, Generate(1, (Message("user", text),), chosen, limit), CancelFlag(), events.append)
    assert isinstance(model.runtime, FakeRuntime)
    return events, list(model.runtime.sequence)


def said(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 17, 50])
def test_a_scripted_reply_is_the_same_and_so_is_what_is_cached(limit: int | None) -> None:
    script = "abcabcabd abcabcabd say=abcabcabdabcx count=6"
    plain, drafted = fake_model(), fake_model(lookup=True)
    one, cached = ask(plain, script, limit)
    two, cached_too = ask(drafted, script, limit)
    assert said(one) == said(two) and cached == cached_too
    last = two[-1]
    assert isinstance(last, Finished) and isinstance(one[-1], Finished)
    assert last.reason == one[-1].reason
    assert last.figures.reply_tokens == one[-1].figures.reply_tokens
    assert isinstance(plain.runtime, FakeRuntime) and isinstance(drafted.runtime, FakeRuntime)
    if limit is None:
        assert len(drafted.runtime.forwarded) < len(plain.runtime.forwarded) / 2
        assert 0 < last.figures.accepted_tokens < last.figures.drafted_tokens


def test_no_draft_goes_beyond_the_context() -> None:
    script = "say=ab count=0"
    plain, drafted = fake_model(context=64), fake_model(context=64, lookup=True)
    (one, cached), (two, cached_too) = ask(plain, script), ask(drafted, script)
    assert said(one) == said(two) and cached == cached_too
    assert isinstance(two[-1], Finished) and two[-1].reason == "context"


def test_escape_in_the_middle_of_a_draft_leaves_what_was_said() -> None:
    runs = []
    for lookup in (False, True):
        model, flag, events = fake_model(lookup=lookup), CancelFlag(), list[Event]()

        def emit(event: Event) -> None:
            events.append(event)  # noqa: B023
            if said(events) == "abcabcabca":  # noqa: B023
                flag.set()  # noqa: B023

        request = Generate(1, (Message("user", "abcabc say=abc count=0"),))
        reply(model, request, flag, emit)
        assert isinstance(events[-1], Finished) and events[-1].reason == "cancelled"
        assert isinstance(model.runtime, FakeRuntime)
        runs.append((said(events), list(model.runtime.sequence)))
    assert runs[0] == runs[1]


def test_an_answer_at_once_interrupts_a_draft() -> None:
    runs = []
    for lookup in (False, True):
        model = fake_model(lookup=lookup, tail="<think>\n")
        now, events = CancelFlag(), list[Event]()

        def emit(event: Event) -> None:
            events.append(event)  # noqa: B023
            if sum(e.tokens for e in events if isinstance(e, Thinking)) == 12:  # noqa: B023
                now.set()  # noqa: B023

        words = "hmhmhmhm say=hm count=0 then=done"
        reply(model, Generate(1, (Message("user", words),)), CancelFlag(), emit, now)
        assert isinstance(model.runtime, FakeRuntime)
        runs.append((said(events), list(model.runtime.sequence)))
    assert runs[0] == runs[1]


def test_a_failure_in_the_middle_leaves_no_draft_behind() -> None:
    model = fake_model(lookup=True)
    ahead, runtime = model.speculation, model.runtime
    assert ahead is not None and isinstance(runtime, FakeRuntime)
    prompt = [ord(char) for char in "abcdabcdab say=abcd count=0"]
    runtime.begin(prompt)
    runtime.forward(prompt)
    ahead.begin(prompt)
    for char in "ab":
        ahead.forward(ord(char), 99)
    assert len(runtime.sequence) > len(prompt) + 2
    with pytest.raises(EngineError):
        try:
            raise EngineError("The sampler fails")
        finally:
            ahead.end()
    assert runtime.sequence == [*prompt, ord("a"), ord("b")]


@contextmanager
def native(
    architecture: str, variant: str, models: Path, kind: str = "F32"
) -> Iterator[NativeRuntime]:
    path = tiny_model(architecture, models, variant=variant, expert_type="F32")
    path = path if kind == "F32" else quantise(path, kind, only_experts=False)
    ops = CpuOps(1)
    with GGUFFile.open(path) as file:
        model = Transformer(file, read_spec(file), ops, pages_for(512), PAGE_SIZE, slots=4)
        yield NativeRuntime(model, 512, pages_for(512), [])
    ops.close()


class Told(History):
    """Expects what it was told, every fifth token wrong: drafts of every length prove right, and wrong."""

    def __init__(self, reply: list[int]) -> None:
        super().__init__()
        self.tokens = list(PROMPT)
        self._reply = [(t + 1) % 250 if i % 5 == 4 else t for i, t in enumerate(reply)] + [0] * 8
        self._count = 0
        self.match = 1

    def append(self, token: int) -> None:
        self.tokens.append(token)
        self._count += 1

    @property
    def expected(self) -> int:
        return self._reply[self._count]

    def draft(self, most: int) -> list[int]:
        return self._reply[self._count : self._count + most]


def decoded(
    runtime: NativeRuntime, tokens: int, drafts: list[int] | None, **sampling: float
) -> tuple[list[int], list[int], int]:
    """The tokens of a reply, those in the cache behind it, and passes that it took; drafts None: one by one."""
    logits = start(runtime)
    sampler = Sampler(Sampling(**{"seed": 5, **sampling}), PROMPT)  # type: ignore[arg-type]
    ahead = eager(runtime, lambda token: False)
    if drafts is not None:
        ahead._history = Told(drafts)
    out: list[int] = []
    for left in range(tokens, 0, -1):
        out.append(sampler.next(logits))
        logits = runtime.forward(out[-1:]) if drafts is None else ahead.forward(out[-1], left)
    ahead.end()
    return out, list(runtime._sequence.tokens), tokens - ahead.accepted


def start(runtime: NativeRuntime) -> Floats:
    """Logits behind the prompt, read anew."""
    runtime.begin([251, *PROMPT])  # another sequence: nothing of this one is taken up again
    runtime.forward([251])
    cached = runtime.begin(PROMPT)
    if cached == len(PROMPT):  # kept with its logits
        assert runtime.logits is not None
        return runtime.logits
    return runtime.forward(PROMPT[cached:])


@pytest.mark.parametrize(("architecture", "variant"), MODELS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_replies_of_real_networks_are_the_same(
    architecture: str, variant: str, temperature: float, models: Path
) -> None:
    with native(architecture, variant, models) as runtime:
        assert runtime.can_cut_back
        how = {"temperature": temperature, "top_k": 4, "repeat_penalty": 1.1}
        plain, cached, _ = decoded(runtime, 60, None, **how)
        drafted, cached_too, passes = decoded(runtime, 60, plain, **how)
    assert drafted == plain and cached == cached_too == PROMPT + plain
    assert 60 / 5 <= passes <= 60 / 2


@pytest.mark.parametrize(("architecture", "variant"), MODELS)
def test_what_is_cut_back_leaves_no_trace(architecture: str, variant: str, models: Path) -> None:
    with native(architecture, variant, models) as runtime:
        rows, pages, free = [], [], []
        for wrong in ([1, 2, 3], [40, 41, 42]):
            start(runtime)
            for token in (7, 8, 9, 10, 11, 12):  # round narrow windows, and over a page's edge
                runtime.forward_all([token, *wrong * 3])
                runtime.cut_back(9)
                assert runtime._sequence.tokens[-1] == token
            rows.append(runtime.forward_all([13, 14, 15, 16]).copy())
            runtime.cut_back(3)
            rows.append(runtime.forward([17]).copy()[None])
            pages.append(len(runtime._sequence.pages))
            free.append(runtime._prefixes.free_pages)
        assert np.array_equal(rows[0], rows[2]) and np.array_equal(rows[1], rows[3])
        assert pages[0] == pages[1] == -(-(len(PROMPT) + 8) // PAGE_SIZE)
        kept = list(runtime._sequence.tokens)
        runtime.begin([250, 249])  # another sequence and back: windows come from their copies
        runtime.forward([250, 249])
        assert runtime.begin([*kept, 3]) == len(kept)
        again = runtime.forward([3]).copy()
    with native(architecture, variant, models) as runtime:
        runtime.begin([*kept, 3])
        runtime.forward(kept)
        assert nmse(runtime.forward([3]), again) < 1e-6


def test_a_recurrent_state_is_not_drafted_on(models: Path) -> None:
    with native("qwen3next", "", models) as runtime:
        assert not runtime.can_cut_back
        start(runtime)
        runtime.forward_all([1, 2, 3])
        with pytest.raises(ValueError, match="cannot be cut back"):
            runtime.cut_back(1)
        assert len(runtime._sequence.tokens) == len(PROMPT) + 3, "nothing is half cut back"


def test_only_what_the_last_pass_read_can_be_cut_back_from_a_window(models: Path) -> None:
    with native("gpt-oss", "narrow", models) as runtime:
        start(runtime)
        with pytest.raises(ValueError, match="cannot be cut back"):
            runtime._model.cut_back(-1)
        with pytest.raises(ValueError, match="cannot be cut back"):
            runtime._model.cut_back(len(PROMPT) + 1)


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
@pytest.mark.parametrize(
    ("architecture", "variant"),
    [("llama", "dense"), ("qwen3moe", ""), ("gemma3", ""), ("gpt-oss", "gpt-oss")],
)
def test_a_pass_of_drafts_gives_the_bits_of_tokens_one_by_one(
    architecture: str,
    variant: str,
    kind: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a seed gives the same reply. If kernels give this up, `speculation` is to say so."""
    if architecture == "gpt-oss":  # a window that attention reads in two pieces
        shape, models = SHAPES[architecture, variant], tmp_path
        metadata = {**shape.metadata, "attention.sliding_window": 128}
        wide = replace(shape, window=128, metadata=metadata)
        monkeypatch.setitem(SHAPES, (architecture, variant), wide)
    tokens, begin = RNG.integers(0, 250, 290).tolist(), 85
    rows: list[list[Floats]] = []
    with native(architecture, variant, models, kind) as runtime:
        for most, offset in ((1, 0), (4, 0), (4, 1), (2, 3)):
            runtime.begin([252, most, offset])
            runtime.forward([252])
            cached = runtime.begin(tokens[: begin + 1])
            if cached < begin:
                runtime.forward(tokens[cached:begin])
            at, found = begin, list[Floats]()
            while at < len(tokens):
                left = min(most if found else max(offset, 1), runtime.alike(at), len(tokens) - at)
                count = max(n for n in (1, *SIZES) if n <= left)
                found += list(runtime.forward_all(tokens[at : at + count]).copy())
                at += count
            rows.append(found)
    for other in rows[1:]:
        assert np.array_equal(rows[0], other)


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q8_0", "MXFP4"])
@pytest.mark.parametrize(("architecture", "variant"), MODELS[:3])
def test_a_pass_of_drafts_is_as_faithful_as_tokens_one_by_one(
    architecture: str, variant: str, kind: str, models: Path
) -> None:
    """The sums of a few tokens may differ from one token's in the last bits, and are no worse."""
    tokens = RNG.integers(0, 250, 96).tolist()
    path = quantise(
        tiny_model(architecture, models, variant=variant, expert_type="F32"),
        kind,
        only_experts=False,
    )
    with GGUFFile.open(path) as file:
        exact = Transformer(file, read_spec(file), ReferenceOps(), pages_for(512), PAGE_SIZE)
        ids = np.array(tokens, np.int32)
        expected = exact.forward_all(ids, np.arange(4, dtype=np.int32), 0)[len(PROMPT) :]
    errors = {}
    with native(architecture, variant, models, kind) as runtime:
        for count in (1, *SIZES):
            runtime.begin([252, count])
            runtime.forward([252])
            cached = runtime.begin(tokens[: len(PROMPT)])
            runtime.forward(tokens[cached : len(PROMPT)])
            rows = [
                runtime.forward_all(tokens[at : at + count]).copy()
                for at in range(len(PROMPT), len(tokens), count)
            ]
            errors[count] = nmse(np.concatenate(rows)[: len(expected)], expected)
    assert all(error <= ALLOWED * errors[1] for error in errors.values()), errors


async def test_it_is_loaded_with_a_model_unless_it_is_unwished(models: Path) -> None:
    path = str(tiny_model("qwen3moe", models))
    texts = []
    for load in (Load(path, device="cpu"), Load(path, device="cpu", lookup=False)):
        model, events = load_model(load, CancelFlag(), lambda event: None), list[Event]()
        assert (model.speculation is not None) == load.lookup
        request = Generate(1, (Message("user", "one two one two"),), Sampling(temperature=0.0), 60)
        reply(model, request, CancelFlag(), events.append)
        assert next(event.cached for event in events if isinstance(event, Prefilled)) == 0
        texts.append(said(events))
        model.close()
    assert texts[0] == texts[1]
