"""Frames: what goes in comes out, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import struct

import pytest

from engine import wire
from engine.common.insight import ExpertCounts, encoded
from engine.errors import ContextError, EngineError, RequestError
from engine.protocol import (
    AnswerNow,
    Cancel,
    Close,
    Command,
    Counted,
    Event,
    Failed,
    Figures,
    Finished,
    Generate,
    Insight,
    Load,
    Loaded,
    Message,
    Notice,
    Observe,
    PartialSampling,
    Prefilled,
    Progress,
    Sampling,
    Text,
    Thinking,
    WasThinking,
    coalesced,
    enqueue,
)
from engine.wire import Frames, encode

COUNTS = struct.pack("<6I", 1, 0, 5, 1 << 31, 7, 2)
INSIGHT = Insight(
    *(9, 7, ExpertCounts(3, 2, 3, 1, encoded(COUNTS), encoded(bytes(24)))),
    *("", 10, 20, (0.5, 0.0, 0.25, 1.0), 40.5, 900.0, 0.1, 0.5, (4, 6)),
)
ITEMS: list[Command | Event] = [
    Load("/models/\udce9.gguf", context=5, runtime="native"),
    Load("m", context="auto", device="gpu", kv="q8"),
    Generate(3, (Message("user", "é\n\x00"), Message("assistant", "")), Sampling(seed=1), 7),
    Generate(4, (), think="low", session="s"),
    Load("m", cache_folder="/kv", cache_budget=5),
    Cancel(3),
    AnswerNow(3),
    Observe(True),
    Close(1.5),
    Progress("load", 1, 2, 0.5),
    Notice("中文"),
    Loaded("p", "n", "a", "q", "r", 1, 2, 3, 0.25, "hybrid"),
    Loaded(
        *("p", "n", "a", "q", "r", 1, 2, 3, 0.25, "CPU", ("off", "high"), "high"),
        PartialSampling(temperature=0.6, top_k=20),
    ),
    Prefilled(1, 1, 0.1, restored=1),
    WasThinking(),
    Thinking("hm", 2),
    Text("\ud800"),
    INSIGHT,
    Insight(0, 0, no_experts="dense"),
    Finished("stop", Figures(prompt_tokens=4, decode_seconds=1.5)),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_items_survive_the_pipe(item: Command | Event) -> None:
    assert list(Frames().feed(encode(item))) == [item]


def test_an_error_arrives_as_the_same_type() -> None:
    (failed,) = Frames().feed(encode(Failed(ContextError("what", "why", "todo"))))
    assert isinstance(failed, Failed)
    assert type(failed.error) is ContextError
    assert failed.error.to_dict() == ContextError("what", "why", "todo").to_dict()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_frames_may_come_in_any_pieces(size: int) -> None:
    data = b"".join(map(encode, ITEMS))
    frames = Frames()
    found = [
        item
        for start in range(0, len(data), size)
        for item in frames.feed(data[start : start + size])
    ]
    assert found == ITEMS


def _loaded(**changes: object) -> bytes:
    """A `Loaded` with other values."""
    body = dataclasses.asdict(Loaded("p", "n", "a", "q", "r", 1, 2, 3, 0.25))
    return json.dumps(["Loaded", {**body, **changes}]).encode()


def _insight(**changes: object) -> bytes:
    return json.dumps(["Insight", {**dataclasses.asdict(INSIGHT), **changes}]).encode()


def _counts(**changes: object) -> bytes:
    assert INSIGHT.experts is not None
    return _insight(experts={**dataclasses.asdict(INSIGHT.experts), **changes})


BAD = {
    "counts of fewer experts": _counts(experts=2),
    "counts of more layers": _counts(layers=1 << 20),
    "no layers": _counts(layers=0, uses="", on_gpu=""),
    "a layer before the first": _counts(first_layer=-1),
    "more chosen than there are": _counts(top_k=4),
    "counts that are no base64": _counts(uses="*" * 32),
    "counts that end early": _counts(uses=encoded(COUNTS)[:-4] + "===="),
    "counts as list": _counts(uses=[1, 2]),
    "counts as text": _insight(experts="x"),
    "unknown why": _insight(no_experts="secret"),
    "more hops": _insight(hop_seconds=[1.0] * 5),
    "a hop below 0": _insight(hop_seconds=[-1.0]),
    "a hop without end": _insight(hop_seconds=[float("inf")]),
    "many slices": _insight(slices=[1] * 65),
    "part of a token": _insight(slices=[0.5]),
    "a slice as boolean": _insight(slices=[True]),
    "slices as text": _insight(slices="12"),
    "no json": b"{",
    "no pair": b"[]",
    "a list as name": b"[[], {}]",
    "unknown": b'["Figures", {}]',
    "missing field": b'["Text", {}]',
    "extra field": b'["Close", {"now": 1}]',
    "number as text": b'["Text", {"text": 5}]',
    "text as number": b'["Cancel", {"id": "1"}]',
    "boolean as number": b'["Cancel", {"id": true}]',
    "unknown reason": b'["Finished", {"reason": "bored", "figures": {}}]',
    "unknown context": b'["Load", {"path": "m", "context": "much"}]',
    "unknown device": b'["Load", {"path": "m", "device": "tpu"}]',
    "no device": b'["Load", {"path": "m", "device": null}]',
    "unknown cache": b'["Load", {"path": "m", "kv": 8}]',
    "unknown runtime": b'["Load", {"path": "m", "runtime": "magic"}]',
    "unknown role": json.dumps(
        ["Generate", {"id": 1, "messages": [{"role": "x", "content": ""}], "sampling": {}, "max_tokens": None}]
    ).encode(),
    "unknown thinking": b'["Generate", {"id": 1, "messages": [], "sampling": {}, "think": "much"}]',
    "unknown choice": _loaded(think=["off", "much"]),
    "a choice twice": _loaded(think=["off", "off"]),
    "many choices": _loaded(think=["off"] * 1000),
    "choices as text": _loaded(think="off"),
    "a choice as list": _loaded(think=[["off"]]),
    "unknown default": _loaded(think_default="much"),
    "sampling of text": _loaded(sampling={"temperature": "hot"}),
    "unknown sampling": _loaded(sampling={"mirostat": 2}),
    "sampling as list": _loaded(sampling=[]),
    "body is a list": b'["Text", ["x"]]',
    "deep": b"[" * 100_000,
    "bytes": b"\xff\xfe",
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_one_typed_error(case: str) -> None:
    with pytest.raises(EngineError, match="unreadable") as caught:
        list(Frames().feed(struct.pack(">I", len(BAD[case])) + BAD[case]))
    assert len(str(caught.value)) < 400


def test_a_load_of_an_older_client_is_understood() -> None:
    assert wire.decode(b'["Load", {"path": "m"}]') == Load("m", None, device="auto", kv="f16")


def test_a_loaded_model_of_an_older_engine_is_understood() -> None:
    model = Loaded("p", "n", "a", "q", "r", 1, 2, 3, 0.25)
    body = {k: v for k, v in dataclasses.asdict(model).items() if k not in NEW}
    assert wire.decode(json.dumps(["Loaded", body]).encode()) == model


NEW = ("think", "think_default", "sampling")


def test_impossible_sampling_is_the_request_s_own_error() -> None:
    body = {"id": 1, "messages": [], "sampling": {"temperature": -1}, "max_tokens": None}
    data = json.dumps(["Generate", body]).encode()
    with pytest.raises(RequestError, match="temperature"):
        list(Frames().feed(struct.pack(">I", len(data)) + data))


def test_frames_have_a_greatest_length() -> None:
    with pytest.raises(EngineError, match="unreadable"):
        list(Frames().feed(struct.pack(">I", wire.MAX_FRAME + 1)))
    with pytest.raises(RequestError, match="too long"):
        encode(Text("x" * wire.MAX_FRAME))


def test_neighbouring_events_are_coalesced() -> None:
    assert coalesced(Text("a", 1), Text("b", 2)) == Text("ab", 3)
    assert coalesced(Thinking("a", 1), Thinking("b", 2)) == Thinking("ab", 3)
    assert coalesced(Progress("load", 1, 9), Progress("load", 2, 9)) == Progress("load", 2, 9)
    assert coalesced(Progress("load", 1, 9), Progress("prefill", 2, 9)) is None
    assert coalesced(Text("a"), Thinking("b")) is None
    assert coalesced(Text("a"), WasThinking()) is None
    assert coalesced(Notice("a"), Notice("b")) is None


def test_counts_come_out_as_they_went_in() -> None:
    assert INSIGHT.experts is not None
    assert [list(row) for row in INSIGHT.experts.rows()] == [[1, 0, 5], [1 << 31, 7, 2]]
    assert [list(row) for row in INSIGHT.experts.rows_on_gpu()] == [[0] * 3] * 2
    assert INSIGHT.hop == "arithmetic" and INSIGHT.hop_share == 1 / 1.75
    assert Insight(0, 0).hop is None and Insight(0, 0).hop_share == 0.0


def test_of_insights_that_nobody_took_the_last_one_is_kept() -> None:
    events: list[Event | Counted] = []
    for number in range(100):
        enqueue(events, Text("a"))
        enqueue(events, Insight(number, number))
    enqueue(events, Thinking("b"))
    assert events == [Text("a" * 100, 100), Insight(99, 99), Thinking("b")]
