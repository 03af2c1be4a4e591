"""A trace says where a token's time went: its rows, its layers, its overhead, its file."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import KtchatError
from engine.evaluation import bench, bench_trace
from engine.evaluation.trace import (
    DEVICE,
    NATIVE,
    PYTHON,
    TOKEN,
    Trace,
    check_writable,
    write_trace,
)
from engine.gguf.file import GGUFFile
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from ktchat.cli import main
from tests.support.tiny import tiny_model

SMALL = ["--prompt", "40", "--gen", "2", "--rounds", "1", "--threads", "1"]
PER_LAYER = {
    ("qwen3moe", ""): ["rope_append", "attention", "linear_add", "route", "moe_add"],
    ("deepseek2", "v3"): ["latent_append", "latent_attention", "linear_add"],
}
pytestmark = pytest.mark.xdist_group("trace")  # which is written once

Event = dict[str, Any]


def token(trace: Trace, start: int, end: int) -> None:
    trace.span(PYTHON, TOKEN, start, end)


def test_overhead_is_the_time_in_which_nothing_works() -> None:
    trace = Trace()
    token(trace, 100, 200)
    trace.span(DEVICE, "graph", 90, 150)  # began before the token
    trace.span("host experts", "layer 0", 140, 160)  # beside the device
    trace.row(NATIVE).ops(["route", "moe_add"], [None, None], [170, 175, 180])
    assert trace.overhead == pytest.approx(0.3)  # 160 to 170 and 180 to 200


def test_overhead_is_the_median_of_the_tokens() -> None:
    trace = Trace()
    for number, work in enumerate((50, 90, 99)):
        token(trace, 1000 * number, 1000 * number + 100)
        trace.span(DEVICE, "graph", 1000 * number, 1000 * number + work)
    assert trace.overhead == pytest.approx(0.1)
    assert trace.token_ns == 100


def test_a_trace_without_a_token_has_no_overhead() -> None:
    with pytest.raises(ValueError):
        _ = Trace().overhead


def test_a_share_is_that_of_spans_within_the_token() -> None:
    trace = Trace()
    trace.span(PYTHON, "sample", 0, 50)
    token(trace, 100, 200)
    trace.span(PYTHON, "sample", 100, 130)
    trace.span(PYTHON, "sample", 190, 200)
    assert trace.share("sample") == pytest.approx(0.4)


def test_ops_get_the_layer_whose_queries_keys_and_values_they_follow() -> None:
    names = [
        *("embed", "norm_linear", "norm_linear", "latent_append", "latent_attention", "ffn_add"),
        *("norm_linear", "latent_append", "latent_attention", "moe_add", "norm_linear"),
    ]
    known = [4 if name.startswith("latent") else None for name in names[:6]]
    known += [5 if name.startswith("latent") else None for name in names[6:]]
    trace = Trace()
    for first in (0, 100):  # two passes: the first one's logits belong to no layer of the second
        stamps = np.arange(first, first + len(names) + 1, dtype=np.int64)
        trace.row(NATIVE).ops(names, known, stamps)
    layers = [span.args.get("layer") for span in trace.spans(NATIVE)]
    assert layers == 2 * [None, 4, 4, 4, 4, 4, 5, 5, 5, 5, None]


def test_the_file_counts_microseconds_from_the_first_span() -> None:
    trace = Trace()
    trace.span("another", "late", 5_003_000, 5_004_500, bytes=7)
    token(trace, 5_000_000, 5_002_000)
    content = trace.to_dict(model="m")
    json.dumps(content)
    names = {e["tid"]: e["args"]["name"] for e in content["traceEvents"] if e["name"] == "thread_name"}  # fmt: skip
    assert names == {1: PYTHON, 2: "another"}
    first, second = (e for e in content["traceEvents"] if e["ph"] == "X")
    assert (first["tid"], first["ts"], first["dur"]) == (1, 0, 2)
    assert (second["tid"], second["ts"], second["dur"], second["args"]) == (2, 3, 1.5, {"bytes": 7})
    assert content["otherData"]["model"] == "m"
    assert content["otherData"]["origin_ns"] == 5_000_000


def test_a_file_is_replaced_whole_or_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.json"
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"

    def full(self: Path, text: str) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(KtchatError, match="No space left"):
            write_trace(path, {"traceEvents": []})
    assert path.read_text() == "old"
    write_trace(path, {"traceEvents": []})
    assert json.loads(path.read_text()) == {"traceEvents": []}
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_trace(link, {})
    assert link.is_symlink() and target.read_text() == "{}"


@pytest.mark.parametrize("name", ["missing/trace.json", ".", "file/trace.json", "circle"])
def test_what_cannot_be_written_is_refused_before_the_measuring_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    monkeypatch.setattr(bench, "bench", lambda *a, **k: pytest.fail("it was measured"))
    model = str(tiny_model("qwen3moe", tmp_path))
    before = sorted(tmp_path.iterdir())
    assert main(["bench", "-m", model, *SMALL, "--trace", str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert "The trace cannot be written" in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_device_is_not_replaced_by_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KtchatError, match="is no file"):
        check_writable(Path(os.devnull))
    assert Path(os.devnull).is_char_device()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trace")


def written(architecture: str, variant: str, folder: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """A tiny model's spec, and the trace that the command writes of it."""
    model = tiny_model(architecture, folder, variant=variant)
    target = folder / f"{architecture}.json"
    if not target.exists():
        assert main(["bench", "-m", str(model), *SMALL, "--trace", str(target)]) == 0
    with GGUFFile.open(model) as file:
        return read_spec(file), json.loads(target.read_text())


def row(content: dict[str, Any], name: str) -> list[Event]:
    events = content["traceEvents"]
    (number,) = (
        e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == name
    )
    return [e for e in events if e["ph"] == "X" and e["tid"] == number]


def end(event: Event) -> float:
    return float(event["ts"] + event["dur"]) + 1e-6  # the file has decimal microseconds


@pytest.mark.parametrize(("architecture", "variant"), PER_LAYER)
def test_every_op_of_a_token_is_there_as_often_as_there_are_layers(
    architecture: str, variant: str, folder: Path
) -> None:
    spec, content = written(architecture, variant, folder)
    tokens = [e for e in row(content, PYTHON) if e["name"] == TOKEN]
    assert len(tokens) == bench_trace.TOKENS
    for one in tokens:
        ops = [e for e in row(content, NATIVE) if one["ts"] <= e["ts"] < end(one)]
        for name in PER_LAYER[architecture, variant]:
            layers = [e["args"]["layer"] for e in ops if e["name"] == name]
            assert layers == list(range(spec.layers)), name
        assert ops[0]["name"] == "embed" and "args" not in ops[0]
        assert ops[-1]["name"] == "norm_linear" and "args" not in ops[-1]
        assert {e["args"]["layer"] for e in ops[1:-1]} == set(range(spec.layers))


def test_the_prefill_has_its_ops_too(folder: Path) -> None:
    spec, content = written("qwen3moe", "", folder)
    (chunk,) = (e for e in row(content, PYTHON) if e["name"] == "prefill")
    assert chunk["args"] == {"tokens": 40}
    ops = [e for e in row(content, NATIVE) if chunk["ts"] <= e["ts"] and end(e) <= end(chunk)]
    assert sum(e["name"] == "moe_add" for e in ops) == spec.layers
    assert sum(e["dur"] for e in ops) <= chunk["dur"]


def test_spans_of_a_row_lie_inside_each_other_or_apart(folder: Path) -> None:
    _, content = written("qwen3moe", "", folder)
    for name in (PYTHON, NATIVE):
        open_spans: list[Event] = []
        for event in row(content, name):
            while open_spans and end(open_spans[-1]) <= event["ts"] + 2e-6:
                open_spans.pop()
            assert not open_spans or end(event) <= end(open_spans[-1]) + 1e-6, event
            assert name == PYTHON or not open_spans, "ops do not nest"
            open_spans.append(event)


def test_the_overhead_follows_from_the_spans_in_the_file(folder: Path) -> None:
    _, content = written("qwen3moe", "", folder)
    shares = []
    for one in (e for e in row(content, PYTHON) if e["name"] == TOKEN):
        ops = [e["dur"] for e in row(content, NATIVE) if one["ts"] <= e["ts"] < end(one)]
        assert sum(ops) <= one["dur"]
        parts = [
            e for e in row(content, PYTHON) if one["ts"] <= e["ts"] < end(one) and e is not one
        ]
        assert [e["name"] for e in parts] == ["sample", "arguments", "native call", "logits"]
        (call,) = (e["dur"] for e in parts if e["name"] == "native call")
        assert call == pytest.approx(sum(ops), abs=0.01)
        shares.append(1 - sum(ops) / one["dur"])
    assert content["otherData"]["overhead"] == pytest.approx(np.median(shares), abs=1e-4)
    assert 0 < content["otherData"]["overhead"] < 1


def test_words_say_where_the_trace_is_and_the_json_has_the_overhead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, target = str(tiny_model("qwen3moe", tmp_path)), tmp_path / "a\x1b[31mb.json"
    assert main(["bench", "-m", model, *SMALL, "--trace", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "trace of 8 tokens" in shown and str(tmp_path) in shown and "\x1b" not in shown
    assert "overhead" in shown and "% of a token" in shown
    assert main(["bench", "-m", model, *SMALL, "--json", "--trace", str(target)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["overhead"] == json.loads(target.read_text())["otherData"]["overhead"]


def test_a_context_without_room_for_the_tokens_is_refused(folder: Path) -> None:
    path = tiny_model("qwen3moe", folder)
    load = bench.Load(prompt=1020, generate=1, rounds=1)
    with pytest.raises(KtchatError, match="1,030 tokens do not fit"):
        bench.bench(path, load, threads=1, traced=True)
