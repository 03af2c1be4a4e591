"""The GPU check's own arithmetic and processes, as far as they need no GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
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
from tests.gpu import (
    children,
    contact,
    deepseek,
    fidelity,
    overhead,
    placements,
    speeds,
    suite,
    vram,
)
from tests.gpu.children import SIMULATED, module
from tests.gpu.stages import Case, Journal, Stage, read, run, shares
from tests.gpu.verdict import BARS, CORRECTNESS, layers_that_fit, verdict, whole_model
from tests.support.clock import PATIENCE, until, within
from tests.support.plans import machine
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import quantise, tiny_model

TOLD: dict[str, list[dict[str, Any]]] = {
    "kernels": [{"name": "1 rows", "ok": True}],
    "self-test": [{"model": "qwen3moe", "same": True}],
    "fidelity": [{"ratio": 1.0}, {"ratio": 1.04}, {"same": True}],
    "layers": [
        {"name": "gpu", "layers": 2, "token_ns": 1000, "overhead_ns": 20},
        {"name": "split", "layers": 2, "token_ns": 1000, "overhead_ns": 20},
        {"name": "gpu", "layers": 8, "token_ns": 4000, "overhead_ns": 40},
        {"name": "split", "layers": 8, "token_ns": 4000, "overhead_ns": 40},
        {"name": "gpu", "ratio": 0.61},
        {"name": "split", "ratio": 0.86},
    ],
    "vram": [{"error": 0.01}, {"error": -0.019}],
    "suite": [{"passed": True}],
}


def entries(**changed: Any) -> list[dict[str, Any]]:
    """A journal in which everything passed, but for stages whose told cases, or how they ended, are given."""
    out = []
    for stage, told in TOLD.items():
        change = changed.get(stage.replace("-", "_"), {})
        out += [{"stage": stage, "case": "one", "told": case} for case in change.get("told", told)]
        ended = {"ended": change.get("ended", "ok"), "why": change.get("why", "")}
        out.append({"stage": stage, "case": "one"} | ended)
        out += [{"stage": stage, "case": None, "stage_ended": True}] * change.get("whole", True)
    return out


def test_all_that_passed_is_ok() -> None:
    result = verdict(entries(), [*TOLD])
    assert result["ok"] and result["correct"]
    expected = {bar.name for bar in BARS if bar.stage != "deepseek"}
    assert result["bars"] == dict.fromkeys(expected, True)
    assert result["failed"] == result["stopped"] == result["skipped"] == result["incomplete"] == []
    assert result["figures"]["overhead"] == pytest.approx((40 + 40 * 20 / 6) / 24000)


@pytest.mark.parametrize(
    ("stage", "change", "correct"),
    [
        ("kernels", {"ended": "failed"}, False),
        ("kernels", {"whole": False}, False),
        ("suite", {"ended": "stopped"}, False),
        ("self_test", {"ended": "skipped", "why": "time was up"}, False),
        ("fidelity", {"told": [{"ratio": 1.06}, {"same": True}]}, False),
        ("fidelity", {"told": [{"ratio": float("nan")}, {"ratio": 1.0}, {"same": True}]}, False),
        ("fidelity", {"told": [{"ratio": 1.0}, {"same": False}]}, False),
        ("fidelity", {"told": [{"ratio": 1.0}]}, False),
        ("layers", {"told": [{"name": "gpu", "ratio": 0.59}]}, True),
        ("layers", {"told": []}, True),
        ("vram", {"told": [{"error": -0.021}]}, True),
        ("vram", {"told": [{"error": True}]}, True),
        ("vram", {"ended": "failed"}, True),
    ],
)
def test_what_failed_or_was_cut_or_missed_its_bar_is_not_ok(
    stage: str, change: dict[str, Any], correct: bool
) -> None:
    result = verdict(entries(**{stage: change}), [*TOLD])
    assert not result["ok"] and result["correct"] == correct
    assert len(result.get(change.get("ended", ""), ["one"])) == 1


def test_a_stage_that_never_ran_is_not_ok_and_a_missing_tool_is_only_said() -> None:
    without = [entry for entry in entries() if entry["stage"] != "vram"]
    assert verdict(without, [*TOLD])["incomplete"] == ["vram"]
    assert not verdict(without, [*TOLD])["ok"]
    tool = {"vram": {"ended": "skipped", "why": "a-tool is not on the path"}}
    result = verdict(entries(**tool), [*TOLD])
    assert result["ok"] and result["skipped"] == ["vram, one: a-tool is not on the path"]


def test_a_bar_whose_figure_cannot_be_had_here_is_left_open() -> None:
    told = [
        {"name": "gpu", "does_not_fit": "8.8 GB, 8 free"},
        *TOLD["layers"][:4],
        TOLD["layers"][5],
    ]
    result = verdict(entries(layers={"told": told}), [*TOLD])
    assert result["ok"] and result["bars"]["gpu"] is None


# ---- processes ---------------------------------------------------------------------------------------


def python(name: str, code: str, seconds: float = PATIENCE, **more: Any) -> Case:
    return Case(name, (sys.executable, "-c", code), seconds, **more)


TELL = "from tests.gpu.children import tell; print('tuning', flush=True); tell({'n': 1});"


def test_a_dry_run_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stage that hangs, one that crashes, one that is cut, and one that passes on the simulated device."""
    crash = python("crashes", TELL + "import os; os.kill(os.getpid(), 11)")
    hang = python("hangs", TELL + "import time; time.sleep(600)", seconds=4)
    cut = python("cut", TELL + "import time; time.sleep(600)")
    stages = (
        Stage("one", PATIENCE, (crash, python("raises", "raise SystemExit('illegal address')"))),
        Stage("two", PATIENCE, (hang, python("tool", TELL, tool="no-such-tool")), beside=2),
        Stage("self-test", PATIENCE, (Case("experts 0.5", module("tests.gpu.self_test", 0.5), PATIENCE),)),
        Stage("four", 4, (cut, python("late", TELL))),
    )  # fmt: skip
    monkeypatch.setenv(SIMULATED, "simulated")
    monkeypatch.setattr(contact, "stages", lambda: stages)
    assert gpu_check.main(["--out", str(tmp_path), "--wheels", str(tmp_path)]) == 1
    lines = read(tmp_path / "results.jsonl")
    ended = {entry["case"]: (entry["ended"], entry["why"]) for entry in lines if "ended" in entry}
    assert {name: how for name, (how, _) in ended.items()} == {
        **{"crashes": "failed", "raises": "failed", "hangs": "stopped", "tool": "skipped"},
        **{"experts 0.5": "ok", "cut": "stopped", "late": "skipped"},
    }
    assert "ended with -11: tuning" in ended["crashes"][1]
    assert ended["raises"][1] == "ended with 1: illegal address"
    assert "after 4 s: tuning" in ended["hangs"][1]
    assert ended["late"][1] == "time was up"
    told = {entry["case"]: entry["told"] for entry in lines if "told" in entry}
    assert told["crashes"] == told["hangs"] == told["cut"] == {"n": 1}
    assert told["experts 0.5"]["error"] < 1e-3
    said = capsys.readouterr().out.splitlines()
    last = json.loads(said[-1])
    assert (
        not last["ok"] and len(last["failed"]) == len(last["stopped"]) == len(last["skipped"]) == 2
    )
    assert any("no-such-tool is not on the path" in line for line in said)
    assert last["incomplete"] == ["one", "two", "four"]


def test_what_a_killed_run_wrote_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = "import os, time; from tests.gpu.children import tell; tell({'pid': os.getpid()}); time.sleep(600)"
    code = (
        "import time; from pathlib import Path; from tests.gpu.stages import *\n"
        f"journal = Journal(Path({str(tmp_path / 'results.jsonl')!r}), print)\n"
        f"case = Case('one', ({sys.executable!r}, '-c', {case!r}), 600)\n"
        "run([Stage('vram', 600, (case,))], journal, time.monotonic() + 600)"
    )  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    until(lambda: read(tmp_path / "results.jsonl"))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    (entry,) = read(tmp_path / "results.jsonl")
    os.kill(entry["told"]["pid"], signal.SIGKILL)  # nobody is left to do it
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"stage": "vr')
    assert read(tmp_path / "results.jsonl") == [entry]
    assert gpu_check.main(["vram", "--verdict", str(tmp_path / "results.jsonl")]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["incomplete"] == ["vram"] and last["bars"]["vram"] is False


def test_a_case_whose_time_is_up_is_ended_with_its_own_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from tests.gpu.children import tell\n"
        "tell({'child': subprocess.Popen(['sleep', '60']).pid})\n"
        "sys.stdout.write('{\"case\": {\"ha'); sys.stdout.flush(); subprocess.run(['sleep', '60'])"
    )
    journal = Journal(tmp_path / "results.jsonl", lambda line: None)
    with within(60):
        run([Stage("a", 60, (python("one", code, 5),))], journal, time.monotonic() + 60)
    told, ended, _ = read(tmp_path / "results.jsonl")
    assert ended["ended"] == "stopped"
    pid = told["told"]["child"]
    until(lambda: _state(pid) == "Z")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_cases_compile_their_kernels_on_a_path_of_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_for_the_check.py", "VALUE = 7")
    code = "import os, carried_for_the_check as c; from tests.gpu.children import tell; tell(dict(os.environ) | {'n': c.VALUE})"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv(SIMULATED, "simulated")
    stage = Stage("vram", PATIENCE, (python("one", code, env={"MORE": "more"}),))
    monkeypatch.setattr(contact, "stages", lambda: (stage,))
    gpu_check.main(["--out", str(tmp_path), "--wheels", str(tmp_path)])
    told = read(tmp_path / "results.jsonl")[0]["told"]
    assert told["n"] == 7 and told["MORE"] == "more"
    assert "TRITON_INTERPRET" not in told and told["OMP_NUM_THREADS"] == "1"


def test_the_stages_are_cases_that_can_be_started() -> None:
    stages = contact.stages()
    names = [(stage.name, case.name) for stage in stages for case in stage.cases]
    assert len(set(names)) == len(names) > 60
    wanted = {bar.stage for bar in BARS} | {*CORRECTNESS}
    assert wanted <= {stage.name for stage in stages}
    for stage in stages:
        for case in stage.cases:
            assert 0 < case.seconds <= stage.seconds or stage.name == "machine"
            file = Path(*case.command[case.command.index("-m") + 1].split("."))
            assert (contact.ROOT / file).with_suffix(".py").exists()


@pytest.mark.parametrize(("cores", "count"), [(10, 4), (4, 4), (16, 1)])
def test_processes_beside_each_other_have_cores_of_their_own(cores: int, count: int) -> None:
    parts = shares(set(range(cores)), count)
    assert sorted(core for part in parts for core in part) == list(range(cores))
    assert len(parts) == count and min(map(len, parts)) >= cores // count


def test_a_process_runs_on_its_share(tmp_path: Path) -> None:
    code = "import os; from tests.gpu.children import tell; tell({'cores': len(os.sched_getaffinity(0))})"
    journal = Journal(tmp_path / "results.jsonl", lambda line: None)
    cases = tuple(python(name, code) for name in ("one", "two"))
    run([Stage("a", PATIENCE, cases, beside=2)], journal, time.monotonic() + PATIENCE)
    told = [entry["told"]["cores"] for entry in read(tmp_path / "results.jsonl") if "told" in entry]
    assert len(told) == 2 and sum(told) <= max(2, len(os.sched_getaffinity(0)))
    assert shares({3}, 2) == [{3}, {3}], "with more processes than cores they share"


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
    of_elsewhere = {"code": 0, "tests": 2, "skipped": 2, "without_gpu": 0}
    assert suite.passed(of_elsewhere), "a file may be for machines without a GPU only"
    assert not suite.passed({"code": 2})
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
    assert max(case["ratio"] for case in cases) <= 1.05
    assert cases[0]["ratio"] < 1e-6  # the simulated device computes in float32


class Wrong(SimulatedDevice):
    """Its attention is a little off."""

    def attention(self, *arguments: Any) -> Any:
        return super().attention(*arguments) * 1.01


def test_a_device_that_computes_wrongly_is_found(tmp_path: Path) -> None:
    path = tiny_model("qwen3", tmp_path, expert_type="F32")
    quantised = quantise(path, "F16", only_experts=False)
    first = next(fidelity.ratios(quantised, Wrong))
    assert first["ratio"] > 1.05 and first["place"] == "all on the GPU"


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
    deepseek.measure(tmp_path, 60)
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
    cases = [case for line in capsys.readouterr().out.splitlines() if (case := children.told(line))]
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
