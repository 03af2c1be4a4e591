"""The GPU check's own arithmetic and processes, as far as they need no GPU."""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.evaluation import bench_trace
from engine.evaluation.trace import DEVICE, HOST, PYTHON, TOKEN, Trace
from engine.gguf.file import GGUFFile
from engine.spec.reader import read_spec
from engine.spec.shapes import SHAPES
from engine.spec.spec import ModelSpec
from tests import gpu_check
from tests.gpu import deepseek, fidelity, overhead, placements, speeds, suite, vram
from tests.gpu.children import Found, collect
from tests.gpu.verdict import (
    BARS,
    LIMIT,
    Bar,
    Section,
    deadlines,
    layers_that_fit,
    verdict,
    whole_model,
)
from tests.support.clock import PATIENCE, until, within
from tests.support.plans import machine
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import quantise, tiny_model

GOOD: dict[str, Any] = {
    "device": "one",
    "tests": {"passed": True, "cut": False},
    "fidelity": {"worst_ratio": 1.04, "different_replies": 0},
    "speed": {"gpu": {"ratio": 0.61}, "split": {"ratio": 0.86}},
    "deepseek": {"gpu": {"ratio": 0.61}, "split": {"ratio": 0.86}},
    "overhead": {"gpu": {"share": 0.05}, "split": {"share": 0.01}},
    "vram": {"worst_error": 0.019},
}
CHILD = [sys.executable, "-c"]


def changed(section: str, **values: Any) -> dict[str, Any]:
    return verdict(GOOD | {section: GOOD[section] | values})


def test_all_that_passed_is_ok() -> None:
    result = verdict(GOOD)
    assert result["ok"] and result["correct"]
    assert result["bars"] == dict.fromkeys((bar.name for bar in BARS), True)
    assert result["cut"] == result["failed"] == []


@pytest.mark.parametrize(
    ("section", "values", "correct"),
    [
        ("tests", {"passed": False}, False),
        ("tests", {"cut": True}, False),
        ("fidelity", {"worst_ratio": 1.06}, False),
        ("fidelity", {"worst_ratio": float("nan")}, False),
        ("fidelity", {"different_replies": 1}, False),
        ("fidelity", {"failed": ["it ended"]}, False),
        ("speed", {"split": {"ratio": 0.84}}, True),
        ("speed", {"gpu": {}}, True),
        ("overhead", {"split": {"share": 0.051}}, True),
        ("vram", {"worst_error": True}, True),
        ("vram", {"cut": True}, True),
        ("deepseek", {"failed": ["it ended"]}, True),
    ],
)
def test_what_failed_or_was_cut_or_missed_its_bar_is_not_ok(
    section: str, values: dict[str, Any], correct: bool
) -> None:
    result = changed(section, **values)
    assert not result["ok"] and result["correct"] == correct
    assert result["cut"] == [section] * bool(values.get("cut"))
    assert result["failed"] == [section] * bool(values.get("failed"))


def test_a_bar_whose_figure_cannot_be_had_here_is_left_open() -> None:
    result = changed("deepseek", gpu={"does_not_fit": "8.8 GB, 8 free"})
    assert result["ok"] and result["bars"]["deepseek_gpu"] is None
    missing = verdict({name: part for name, part in GOOD.items() if name != "speed"})
    assert missing["bars"]["gpu"] is False and not missing["ok"]
    assert Bar("one", ("a",), least=1).met({"a": "2"}) is False


def test_a_section_leaves_those_after_it_their_seconds() -> None:
    sections = [Section(name, kept, lambda end: {}) for name, kept in (("a", 0), ("b", 60), ("c", 40))]  # fmt: skip
    assert deadlines(sections, 1000.0) == [900.0 + LIMIT, 960.0 + LIMIT, 1000.0 + LIMIT]


def test_the_check_keeps_most_of_its_time_for_correctness() -> None:
    kept = sum(section.kept for section in gpu_check.SECTIONS)
    assert LIMIT <= 480 and kept <= LIMIT * 0.45


def test_a_section_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bad(deadline: float) -> dict[str, Any]:
        raise RuntimeError("no such memory")

    def good(deadline: float) -> dict[str, Any]:
        return {"left": deadline - time.monotonic()}

    monkeypatch.setattr(gpu_check, "CORRECTNESS", (Section("one", 0, good), Section("two", 0, bad)))
    monkeypatch.setattr(gpu_check, "SECTIONS", (Section("three", 50, good), Section("four", 70, good)))  # fmt: skip
    figures = gpu_check.check(time.monotonic())
    assert figures["two"]["failed"] == ["RuntimeError: no such memory"]
    lefts = [figures[name]["left"] for name in ("one", "three", "four")]
    assert lefts == pytest.approx([LIMIT - 120, LIMIT - 70, LIMIT], abs=20)
    said = capsys.readouterr().out
    assert "two failed" in said and "four ended" in said


# ---- children ----------------------------------------------------------------------------------------


def test_children_tell_cases_among_other_words() -> None:
    tell = "from tests.gpu.children import tell; print('tuning'); tell({'n': %d})"
    found = collect([[*CHILD, tell % n] for n in range(2)], time.monotonic() + PATIENCE)
    assert sorted(case["n"] for case in found.cases) == [0, 1]
    assert found.failed == [] and not found.cut


def test_a_child_that_crashes_keeps_what_it_told(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "from tests.gpu.children import tell; tell({'n': 1}); raise SystemExit('illegal address')"
    )
    found = collect([[*CHILD, code]], time.monotonic() + PATIENCE)
    assert found.cases == [{"n": 1}] and not found.cut
    assert found.failed == [f"{code} ended with 1: illegal address"]
    assert "illegal address" in capfd.readouterr().err


def test_a_child_whose_time_is_up_is_ended_with_its_own_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from tests.gpu.children import tell\n"
        "tell({'child': subprocess.Popen(['sleep', '60']).pid})\n"
        "sys.stdout.write('{\"case\": {\"ha'); sys.stdout.flush(); subprocess.run(['sleep', '60'])"
    )
    begin = time.monotonic()
    collect([[*CHILD, "from tests.gpu.children import tell"]], begin + PATIENCE)
    enough = 2 + 5 * (time.monotonic() - begin)  # by then it has told its case
    with within(10 + enough):
        found = collect([[*CHILD, code]], time.monotonic() + enough)
    assert found.cut and len(found.cases) == 1 and found.failed == []
    pid = found.cases[0]["child"]
    until(lambda: _state(pid) == "Z")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_children_compile_their_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    code = "import os; from tests.gpu.children import tell; tell(dict(os.environ))"
    (case,) = collect([[*CHILD, code]], time.monotonic() + PATIENCE).cases
    assert "TRITON_INTERPRET" not in case and case["OMP_NUM_THREADS"] == "1"
    assert case["PATH"] == os.environ["PATH"]


# ---- the kernels' tests ------------------------------------------------------------------------------


def report(folder: Path, *reasons: str) -> dict[str, Any]:
    skipped = "".join(f'<testcase name="a"><skipped message="{words}"/></testcase>' for words in reasons)  # fmt: skip
    path = folder / "report.xml"
    path.write_text(
        f'<testsuites><testsuite tests="{3 + len(reasons)}" failures="0" errors="0"'
        f' skipped="{len(reasons)}" time="1.5">{skipped}</testsuite></testsuites>'
    )
    return {"code": 0} | suite.counts(path)


def test_a_test_that_was_skipped_for_want_of_a_gpu_has_not_passed(tmp_path: Path) -> None:
    assert suite.passed(report(tmp_path))
    assert suite.passed(report(tmp_path, "there the graph is a real one"))
    assert not suite.passed(report(tmp_path, "needs KTCHAT_GPU_TESTS=1 and a CUDA device"))
    assert not suite.passed({"code": 0, "tests": 2, "skipped": 2, "without_gpu": 0})
    assert not suite.passed({"code": None, "timed_out": True})
    assert not suite.passed({"code": 1} | suite.counts(tmp_path / "report.xml"))
    assert suite.passed({"code": 5})


# ---- placements and fidelity -------------------------------------------------------------------------


def spec_of(path: Path) -> ModelSpec:
    with GGUFFile.open(path) as file:
        return read_spec(file)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_model("deepseek2", tmp_path_factory.mktemp("gpu"), variant="v3", expert_type="F32")
    return quantise(path, "Q4_K", only_experts=False)


def test_placements_give_experts_to_layers_that_have_some(mixture: Path) -> None:
    spec = spec_of(mixture)
    assert spec.moe is not None
    dense, count = spec.layers - spec.moe_layers, spec.moe.experts
    for where in placements.differ(spec):
        placed = placements.placement(spec, where, 77)
        assert placed.context == 77 and len(placed.layers) == spec.layers
        assert [place.experts for place in placed.layers[:dense]] == [0] * dense
    whole, host, part, _, mixed, eight = (
        placements.placement(spec, where, 1) for where in placements.FIDELITY
    )
    assert (whole.kv, eight.kv) == ("f16", "q8") and eight.layers == whole.layers
    assert {place.experts for place in whole.layers[dense:]} == {count}
    assert {place.experts for place in host.layers} == {0}
    assert {place.experts for place in part.layers[dense:]} == {count // 2}
    assert mixed.layers[0].gpu is None and mixed.layers[-1].gpu == 0


def test_every_placement_is_held_against_float32(mixture: Path) -> None:
    cases = list(fidelity.ratios(mixture, SimulatedDevice))
    assert [case["place"] for case in cases] == [where.name for where in placements.FIDELITY]
    assert fidelity.summary(cases)["worst_ratio"] <= 1.05
    assert cases[0]["ratio"] < 1e-6  # the simulated device computes in float32


class Wrong(SimulatedDevice):
    """Its attention is a little off."""

    def attention(self, *arguments: Any) -> Any:
        return super().attention(*arguments) * 1.01


def test_a_device_that_computes_wrongly_is_found(tmp_path: Path) -> None:
    path = tiny_model("qwen3", tmp_path, expert_type="F32")
    summary = fidelity.summary(
        list(fidelity.ratios(quantise(path, "F16", only_experts=False), Wrong))
    )
    assert summary["worst_ratio"] > 1.05
    assert summary["above"][0]["place"] == "all on the GPU"


def test_replies_with_and_without_captured_passes_are_compared(
    mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "REPLY", 12)
    replies: list[list[int]] = []
    real = fidelity._reply

    def watched(*arguments: Any) -> list[int]:
        replies.append(real(*arguments))
        return replies[-1] + [0] * (os.environ.get("KTCHAT_GPU_GRAPH") == "0") * lie

    monkeypatch.setattr(fidelity, "_reply", watched)
    lie = 0
    assert fidelity.same_replies(mixture, SimulatedDevice)
    lie = 1
    assert not fidelity.same_replies(mixture, SimulatedDevice)
    assert len(replies) == 4 and all(len(set(reply)) > 2 for reply in replies)
    assert "KTCHAT_GPU_GRAPH" not in os.environ


def test_the_summary_of_fidelity_has_no_worst_of_nothing() -> None:
    assert fidelity.summary([]) == {"checked": 0, "replies": 0, "above": []}
    cases = [{"ratio": 1.0}, {"ratio": 1e9, "place": "x"}, {"same": True}, {"same": False}]
    summary = fidelity.summary(cases)
    assert summary["worst_ratio"] == 1e9 and summary["above"] == [cases[1]]
    assert summary["different_replies"] == 1 and summary["replies"] == 2


# ---- figures -----------------------------------------------------------------------------------------


def test_the_whole_models_token_lies_on_the_line_through_two_others() -> None:
    small = {"layers": 2, "token_ns": 1000, "overhead_ns": 300}
    large = {"layers": 8, "token_ns": 2200, "overhead_ns": 360}
    whole = whole_model(small, large, 48)
    assert whole["token_ns"] == 1000 + 46 * 200
    assert whole["overhead_ns"] == 300 + 46 * 10
    assert whole["share"] == pytest.approx(760 / 10200)
    constant = whole_model(small | {"overhead_ns": 400}, large, 48)
    assert constant["overhead_ns"] == 360, "noise does not make it fall"


def test_overhead_is_said_only_of_placements_with_both_counts_of_layers() -> None:
    def found(layers: int, *names: str, cut: bool = False) -> Found:
        case = {"layers": layers, "token_ns": 100 * layers, "overhead_ns": 4}
        return Found([{"name": name} | case for name in names], [], cut)

    out = overhead.summary([found(2, "gpu", "split"), found(8, "gpu", cut=True)])
    assert out["gpu"]["share"] == pytest.approx(4 / 4800) and "split" not in out and out["cut"]


@pytest.mark.parametrize(
    ("limit", "layers"),
    [({}, 9), ({"disk": 560}, 5), ({"ram": 390}, 3), ({"vram": 49}, 4), ({"file_bytes": 109.0}, 0)],
)
def test_layers_are_as_many_as_every_memory_holds(limit: dict[str, Any], layers: int) -> None:
    room: dict[str, Any] = {"disk": 10**6, "ram": 10**6, "vram": 10**6, "file_bytes": 1e6}
    assert layers_that_fit(lambda n: (100 * n, 10 * n), 9, **(room | limit)) == layers


def test_a_layer_of_deepseek_is_as_large_as_it_is() -> None:
    shape = SHAPES[deepseek.SHAPE]
    before, after = deepseek.sizes(shape.dense_layers), deepseek.sizes(shape.dense_layers + 1)
    assert before[0] == 0
    assert 6.3e9 < after[0] - before[0] < 7.4e9  # 11.3 billion parameters of Q4_K and Q6_K
    assert 0.1e9 < after[1] - before[1] < 0.3e9


def test_a_machine_without_room_for_a_layer_with_experts_leaves_its_bars_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speeds, "free_bytes", lambda: 1 << 40)
    monkeypatch.setattr(deepseek, "available_memory", lambda: 4 << 30)
    deepseek.main(tmp_path, 60)
    assert list(tmp_path.iterdir()) == []
    said = [line for line in capsys.readouterr().out.splitlines() if "does_not_fit" in line]
    assert len(said) == 2


def test_a_token_reads_experts_and_the_rest(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path, expert_type="Q8_0")
    spec = spec_of(path)
    with GGUFFile.open(path) as file:
        dense, experts = speeds.token_bytes(file, spec)
    cache = (
        speeds.PROMPT + speeds.WARM + speeds.ROUNDS * speeds.REPLY // 2
    ) * spec.kv_bytes_per_token
    assert dense + experts == spec.active_bytes_per_token + cache
    assert spec.moe is not None
    assert experts * spec.moe.experts == spec.groups["experts"].bytes * spec.moe.top_k


def test_the_largest_error_of_planned_memory_counts_whatever_its_sign() -> None:
    cases = [{"error": 0.01}, {"error": -0.03}]
    out = vram.summary([Found(cases, [], cut=False), Found([], ["it ended"], cut=True)])
    assert out["worst_error"] == 0.03 and out["cut"] and out["failed"] == ["it ended"]
    assert "worst_error" not in vram.summary([Found([], [], cut=True)])
    assert len(vram.SUBJECTS) >= 4 and len(set(vram.CONTEXTS)) >= 3


# ---- sections on a simulated device ------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[SimulatedDevice]:
    """What sections have opened instead of a GPU, the latest last."""
    devices: list[SimulatedDevice] = []

    def gpu(number: int = 0) -> SimulatedDevice:
        devices.append(SimulatedDevice(8 << 30))
        return devices[-1]

    monkeypatch.setattr(placements, "gpu", gpu)
    return devices


def test_planned_memory_is_held_against_what_the_driver_says(
    opened: list[SimulatedDevice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    hardware = machine(64, 8)

    def free(gpu: int) -> int:
        return hardware.gpus[gpu].free - opened[-1].held

    monkeypatch.setattr(vram, "PROMPT", 100)
    monkeypatch.setattr(vram, "shape_file", lambda *a, **k: path)
    monkeypatch.setattr(vram, "probe", lambda measure: hardware)
    monkeypatch.setattr(vram, "free_bytes", free)
    monkeypatch.setattr(vram, "forget", lambda: None)
    vram.main(vram.Subject("tiny", 2, "F16"), (256, 512, 1024))
    cases = [json.loads(line)["case"] for line in capsys.readouterr().out.splitlines()]
    assert [case["context"] for case in cases] == [256, 512, 1024]
    per_token = spec_of(path).kv_bytes_per_token
    for before, after in pairwise(cases):
        more = (after["context"] - before["context"]) * per_token
        assert after["measured"] - before["measured"] == more
        assert after["parts"][0]["KV cache"] - before["parts"][0]["KV cache"] == more
    for case in cases:
        (ledger,) = case["parts"]
        parts = sum(size for label, size in ledger.items() if label != "reserve")
        assert case["planned"] == parts
        assert case["error"] == pytest.approx(parts / case["measured"] - 1)


def test_a_speed_is_held_against_its_bound(
    opened: list[SimulatedDevice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    for name, value in (("PROMPT", 20), ("REPLY", 3), ("CONTEXT", 20 + 4 + 3 * 3)):
        monkeypatch.setattr(speeds, name, value)
    for where in (placements.WHOLE, placements.HOST):
        case = speeds.measure(path, spec_of(path), where, 1e-3)
        assert case["ratio"] == pytest.approx(case["decode_tok_s"] * 1e-3)
        assert len(case["rounds_tok_s"]) == 3 and min(case["rounds_tok_s"]) > 0
        assert case["prefill_tok_s"] > 0
    assert sum(one.replays for one in opened) >= 2 * (4 + 3 * 3), (
        "tokens are captured passes, as in a conversation"
    )


def test_a_traced_token_has_the_devices_pass_and_the_hosts_experts(
    opened: list[SimulatedDevice], mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[Trace] = []
    real = bench_trace.traced

    def kept(*arguments: Any) -> Trace:
        traces.append(real(*arguments))
        return traces[-1]

    monkeypatch.setattr(bench_trace, "traced", kept)
    spec = spec_of(mixture)
    for where, layers in ((placements.WHOLE, 0), (placements.HOST, spec.moe_layers)):
        case = overhead.traced(mixture, where)
        trace = traces[-1]
        tokens = [span for span in trace.spans(PYTHON) if span.name == TOKEN]
        passes = trace.spans(DEVICE)
        assert len(tokens) == len(passes) == bench_trace.TOKENS
        answers = [span for span in trace.spans(HOST) if span.start >= tokens[0].start]
        assert len(answers) == layers * len(tokens)
        dense = spec.layers - spec.moe_layers
        assert {span.args["layer"] for span in answers} == set(range(dense, dense + layers))
        for token, done in zip(tokens, passes, strict=True):
            assert token.start < done.start < done.end < token.end
        for answer in answers:  # the pass waits for it
            assert any(done.start < answer.start < answer.end < done.end for done in passes)
        assert 0 < case["overhead_ns"] < case["token_ns"]
        assert case["share_of_few_layers"] == pytest.approx(case["overhead_ns"] / case["token_ns"])
