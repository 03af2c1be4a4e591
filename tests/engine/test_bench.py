"""The benchmark measures what it says, in turns, and its command line is clean."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import MemoryShortError, RequestError, UnsupportedModelError
from engine.evaluation import bench, disturbance
from engine.evaluation.llama_cpp_reference import baseline_version
from engine.machine.probes.bandwidth import read_bandwidth
from engine.machine.probes.cpu_time import CpuTime
from engine.runtimes import chosen, gpu
from engine.spec.reader import read_spec
from engine.spec.spec import ModelSpec
from kernels.cpu.native import ISAS
from kernels.ops import Floats
from ktchat.cli import bench_table, main
from tests.support.clock import PATIENCE, until, within
from tests.support.plans import machine
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny import tiny_model

KEYS = [
    *("device", "kv", "prompt", "token_bytes", "memory_nodes", "huge_page_bytes"),
    *("prefill_tok_s", "decode_tok_s", "decode_gb_s", "read_limit_gb_s", "limit_ratio", "peer"),
    *("prefill_ratio", "decode_ratio", "follow_up_s", "follow_up_ratio"),
    *("second_turn_s", "second_turn_ratio", "overhead"),
    *("hour", "quiet_rounds", "conditions", "rounds"),
]
SMALL = ["--prompt", "40", "--gen", "4", "--rounds", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def model(models: Path) -> Path:
    return tiny_model("qwen3moe", models)


class Hour:
    """What the memory gives, measurement by measurement, and what others take in each round."""

    def __init__(self) -> None:
        self.limits: list[float] = []
        self.others: list[float] = []
        self._now, self._all = 0.0, 0.0
        self._inside = False

    def read_bandwidth(self, threads: int) -> float:
        return self.limits.pop(0) if self.limits else 10.0

    def cpu_time(self) -> CpuTime:
        if self._inside:
            self._now += 2.0
            self._all += 2.0 * (self.others.pop(0) if self.others else 0.0)
        self._inside = not self._inside
        return CpuTime(self._now, self._all, 0.0)


@pytest.fixture(autouse=True)
def hour() -> Iterator[Hour]:
    """A quiet one, unless a test says otherwise: how much others compute is no business of a test."""
    scripted = Hour()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disturbance, "read_bandwidth", scripted.read_bandwidth)
        patch.setattr(disturbance, "cpu_time", scripted.cpu_time)
        yield scripted


class RecordedSide:
    """A side that takes no time and remembers what it was given."""

    def __init__(self, name: str, log: list[tuple[str, list[int]]], cuts: bool = True) -> None:
        self.name, self.log, self.cuts = name, log, cuts

    def resume(self, tokens: Sequence[int], length: int) -> int:
        return length if self.cuts else 0

    def start(self, prompt: Sequence[int]) -> None:
        self.log.append((self.name, []))

    def forward(self, tokens: Sequence[int]) -> Floats:
        self.log.append((self.name, list(tokens)))
        return np.zeros(8, np.float32)


def play(load: bench.Load) -> list[tuple[str, list[int]]]:
    """What both sides were given in the measured rounds."""
    log: list[tuple[str, list[int]]] = []
    sides: list[bench.Side] = [RecordedSide("ours", log), RecordedSide("peer", log, cuts=False)]
    rounds = list(bench._rounds(sides, load, 100, 16, 1, lambda *said: None, itertools.count()))
    assert len(rounds) == load.rounds
    starts = [i for i, (_, tokens) in enumerate(log) if not tokens]
    return log[starts[2] :]


def test_both_sides_take_turns_with_the_same_tokens() -> None:
    load = bench.Load(prompt=40, generate=3, rounds=4)
    log = play(load)
    assert [name for name, tokens in log if not tokens] == ["ours", "peer", "peer", "ours"] * 2
    prompts = []
    for first in range(0, len(log), 14):
        one, two = log[first : first + 7], log[first + 7 : first + 14]
        assert [tokens for _, tokens in one] == [tokens for _, tokens in two]
        assert [len(tokens) for _, tokens in one] == [0, 16, 16, 8, 1, 1, 1]
        prompts.append(one[1][1][0])
    assert len(set(prompts)) == len(prompts), "a prompt that begins alike would be in the cache"


def test_the_context_is_filled_before_decoding() -> None:
    load = bench.Load(prompt=20, generate=2, rounds=1, fill=30)
    log = play(load)
    assert [len(tokens) for _, tokens in log[:6]] == [0, 16, 4, 10, 1, 1]
    assert load.context == 32


def test_a_follow_up_is_timed_after_the_reply() -> None:
    load = bench.Load(prompt=20, generate=2, rounds=1, follow_up=18)
    log = play(load)
    ours, peer = log[:9], log[9:]
    assert [len(tokens) for _, tokens in ours] == [0, 16, 4, 1, 1, 16, 2, 16, 2]
    assert load.context == 40
    again = [token for _, tokens in peer[7:] for token in tokens]
    assert len(again) == 38, "a peer that cannot cut back reads all again"
    prompt, turn = ours[1][1] + ours[2][1], ours[7][1] + ours[8][1]
    assert again == prompt + turn


def rounds_of(load: bench.Load) -> tuple[bench.Round, ...]:
    sides: list[bench.Side] = [RecordedSide("ours", [])]
    return tuple(bench._rounds(sides, load, 100, 16, 1, lambda *said: None, itertools.count()))


def test_a_disturbed_round_is_repeated_and_does_not_count(hour: Hour) -> None:
    hour.limits, hour.others = [10.0, 10.5, 12.0, 12.0, 11.0], [0.04, 0.0, 0.06, 0.0]
    load = bench.Load(prompt=4, generate=1, rounds=2)
    rounds = rounds_of(load)
    assert [r.disturbance.quiet for r in rounds] == [True, False, False, True]
    assert [r.read_limit_gb_s for r in rounds] == [10.25, 11.25, 12.0, 11.5]
    rounds = tuple(
        replace(r, ours=bench.Speed(speed, speed))
        for r, speed in zip(rounds, (4.0, 100.0, 100.0, 6.0), strict=True)
    )
    result = bench.BenchResult("m", "Q4_K", 2, load, 9, 9, rounds, "")
    assert result.decode_tok_s == 5.0, "the median of those that count"
    figures = result.to_dict()
    assert figures["quiet_rounds"] == 2 and len(figures["rounds"]) == 4
    assert [r["quiet"] for r in figures["rounds"]] == [True, False, False, True]
    assert "in 2 of 4 rounds memory's speed moved by up to 14 %" in result.hour
    assert "other programs took up to 0.06 of a core" in result.hour
    shown = "\n".join(bench_table.lines(result))
    assert shown.count("not counted: prefill 100.0, decode 100.0 tok/s: memory's speed moved") == 2


def test_an_hour_that_never_is_quiet_ends_and_says_so(hour: Hour) -> None:
    hour.others = [1.0] * 99
    load = bench.Load(prompt=4, generate=1, rounds=2)
    rounds = rounds_of(load)
    assert len(rounds) == load.most_rounds == 6
    result = bench.BenchResult("m", "Q4_K", 2, load, 9, 9, rounds, "")
    assert result.counted == rounds
    assert "None was quiet, so all of them count, and the figures say little" in result.hour
    hour.others = [1.0] * 5
    result = replace(result, rounds=rounds_of(load))
    assert len(result.counted) == 1 and "Only 1 quiet round counts of the 2" in result.hour


def test_the_follow_up_ratio_is_ours_over_theirs() -> None:
    rounds = tuple(
        bench.Round(20.0, bench.Speed(1, 1, ours, 0.2), bench.Speed(1, 1, 2.0, 10.0))
        for ours in (0.5, 1, 3)
    )
    load = bench.Load(follow_up=32)
    figures = bench.BenchResult("m", "Q4_K", 2, load, 9, 9, rounds, "1.2").to_dict()
    assert figures["follow_up_s"] == 1 and figures["follow_up_ratio"] == 0.5
    assert figures["second_turn_s"] == 0.2 and figures["second_turn_ratio"] == 0.02


def test_ratios_are_those_of_each_round() -> None:
    speeds = [(100.0, 50.0, 40.0), (80.0, 20.0, 10.0), (60.0, 90.0, 100.0)]
    rounds = tuple(
        bench.Round(20.0, bench.Speed(2 * a, b), bench.Speed(a, c)) for a, b, c in speeds
    )
    result = bench.BenchResult("m", "Q4_K", 2, bench.Load(), 9, 200_000_000, rounds, "1.2")
    figures = result.to_dict()
    assert list(figures) == KEYS
    assert figures["prefill_tok_s"] == 160
    assert figures["decode_tok_s"] == 50
    assert figures["decode_gb_s"] == pytest.approx(10)
    assert figures["limit_ratio"] == pytest.approx(0.5)
    assert figures["prefill_ratio"] == 2
    assert figures["decode_ratio"] == 1.25, "the median of 1.25, 2.0 and 0.9"
    assert figures["peer"] == {
        **{"name": "llama.cpp", "version": "1.2"},
        **{"prefill_tok_s": 80, "decode_tok_s": 40},
    }


def test_a_token_reads_active_weights_and_the_cache_before_it(model: Path) -> None:
    load = bench.Load(prompt=40, generate=4, rounds=1)
    result = bench.bench(model, load, threads=1)
    from engine.gguf.file import GGUFFile

    with GGUFFile.open(model) as file:
        spec = read_spec(file)
    assert result.token_bytes == spec.active_bytes_per_token + 42 * spec.kv_bytes_per_token
    assert result.baselines == []
    assert result.to_dict()["peer"] is None
    assert result.decode_tok_s > 0 < result.prefill_tok_s


def test_the_table_and_the_json_show_both_engines(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "-m", str(model), *SMALL, "--vs", "llama.cpp"]) == 0
    shown = capsys.readouterr().out
    assert "tiny qwen3moe" in shown
    assert "prompt 40, generated 4 with 40 before · 1 threads · median of 2 rounds" in shown
    assert "llama.cpp (0.3.36" in shown
    assert "decode ratio by round:" in shown
    assert "A quiet hour: memory's speed moved by up to 0 % in a round" in shown
    assert main(["bench", "--model", str(model), *SMALL, "--vs", "llama.cpp", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures) == KEYS
    assert list(figures["peer"]) == ["name", "version", "prefill_tok_s", "decode_tok_s"]
    assert len(figures["rounds"]) == 2 and figures["overhead"] is None
    assert figures["device"] == "CPU"
    made = figures["conditions"]
    assert made["isa"] in ISAS and made["cores"] >= 1 and made["memory_bytes"] > 1 << 30
    assert (
        made["processor"] and made["date"] and made["versions"]["llama.cpp"] == baseline_version()
    )
    assert all(figures[key] > 0 for key in KEYS[2:5] + KEYS[6:11])
    assert figures["kv"] == "f16" and figures["huge_page_bytes"] >= 0


@pytest.mark.parametrize("kv", ["f16", "q8"])
def test_lengths_come_as_a_table_with_the_bound_of_each(
    kv: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--lengths", "40,90", *SMALL[2:], "--kv", kv]
    assert main(["bench", "-m", str(model), *small]) == 0
    shown = capsys.readouterr().out
    assert f"KV cache {kv}" in shown and "bound" in shown
    rows = [line.split() for line in shown.splitlines() if "tok/s" in line]
    assert [row[0] for row in rows] == ["40", "90"] and rows[0][3] == "1.00"
    assert main(["bench", "-m", str(model), *small, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    per_token = 8 * 64 * 2 if kv == "f16" else 8 * 64 * 34 // 32
    assert second["token_bytes"] - first["token_bytes"] == 50 * per_token
    assert main(["bench", "-m", str(model), "--lengths", "4,x"]) == 2
    assert "no lengths" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either a model or a shape"),
        (["--model", "a.gguf", "--shape", "qwen3-4b"], "either a model or a shape"),
        (["--model", "a.gguf", "--layers", "2"], "belong to --shape"),
        (["--model", "a.gguf", "--gen", "0"], "gen 0 is not possible"),
        (["--model", "a.gguf", "--rounds", "-1"], "rounds -1 is not possible"),
        (["--model", "a.gguf", "--threads", "0"], "0 threads are not possible"),
        (["--model", "a.gguf", "--vs", "ollama"], "invalid choice"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "/nowhere/a.gguf"], "/nowhere/a.gguf"),
        (["--shape", "gpt-9"], "There is no shape gpt-9"),
        (["--shape", "qwen3-4b", "--layers", "99"], "Use a number from 1 to 36"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 1
    error = capsys.readouterr().err
    assert words.removeprefix("/nowhere/") in error
    assert error.count("\n") == 1


def test_what_does_not_fit_is_refused_first(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"2,064 tokens do not fit.*context of 1,024"):
        bench.bench(model, bench.Load(prompt=2000))
    monkeypatch.setattr(bench, "available_memory", lambda: 1000)
    with pytest.raises(MemoryShortError, match=r"into memory twice.*leave out --vs"):
        bench.bench(model, bench.Load(prompt=20), versus=True)


def test_a_gpu_is_measured_where_there_is_one(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    devices: list[SimulatedDevice] = []

    def opened(number: int) -> SimulatedDevice:
        devices.append(SimulatedDevice(4 << 30))
        return devices[-1]

    hardware = machine(64, 4)
    monkeypatch.setattr(chosen, "gpus", lambda: (hardware.gpus, [], []))
    monkeypatch.setattr(chosen, "probe", lambda measure: hardware)
    monkeypatch.setattr(gpu, "cuda_device", opened)
    monkeypatch.setattr(gpu, "check_gpu", lambda *arguments: None)  # it opens devices of its own
    monkeypatch.setattr(bench, "available_memory", lambda: 0)  # RAM need not hold it
    trace = tmp_path / "trace.json"
    arguments = ["bench", "-m", str(model), *SMALL]
    assert main([*arguments, "--trace", str(trace)]) == 0
    shown = capsys.readouterr().out
    assert "before · GPU · median" in shown and "that memory gives" not in shown
    assert devices[0].replays > 0
    names = {event["args"].get("name") for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "M"}  # fmt: skip
    assert {"python", "device"} <= names
    assert main([*arguments, "--device", "gpu", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["device"] == "GPU" and figures["limit_ratio"] is None
    monkeypatch.undo()
    assert main([*arguments, "--device", "cpu"]) == 0 and len(devices) == 2


def test_a_gpu_that_is_not_there_is_said(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chosen, "probe", lambda measure: machine(64))
    assert main(["bench", "-m", str(model), *SMALL, "--device", "gpu"]) == 1
    error = capsys.readouterr().err
    assert "cannot run on the GPU" in error and error.count("\n") == 1


def test_a_model_that_only_llama_cpp_runs_is_not_measured(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bench.read_spec

    def foreign(file: Any) -> ModelSpec:
        return replace(plain(file), unsupported="gemma3 is new to us")

    monkeypatch.setattr(bench, "read_spec", foreign)
    with pytest.raises(UnsupportedModelError, match=r"Only llama\.cpp runs it: gemma3"):
        bench.bench(model, bench.Load())


def test_the_shapes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--shape", "list"]) == 0
    shown = capsys.readouterr().out
    assert "qwen3-30b-a3b" in shown
    assert "recipes: Q4_K_M" in shown


def test_the_memory_bandwidth_is_plausible() -> None:
    assert 0.01 < read_bandwidth(1, seconds=0.02, buffer=64 << 20) < 2000
    assert 0.01 < read_bandwidth(2, seconds=0.02, buffer=64 << 20) < 2000
    with pytest.raises(MemoryShortError, match="not to be had"):
        read_bandwidth(1, seconds=0.02, buffer=1 << 60)


def started(arguments: list[str], cache: Path) -> subprocess.Popen[str]:
    """`ktchat bench` in a child that keeps its files in `cache`."""
    return subprocess.Popen(
        [sys.executable, "-m", "ktchat", "bench", *arguments],
        env={**os.environ, "KTCHAT_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.xdist_group("clock")
def test_an_interrupt_while_weights_are_made_leaves_nothing(tmp_path: Path) -> None:
    child = started(["--shape", "qwen3-30b-a3b", "--layers", "4"], tmp_path)
    until(lambda: list(tmp_path.rglob("*.part")))
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, error) == (130, "", "")
    assert list(tmp_path.rglob("*.gguf")) == list(tmp_path.rglob("*.part")) == []


@pytest.mark.xdist_group("clock")
def test_an_interrupt_while_measuring_ends_at_once(model: Path, tmp_path: Path) -> None:
    child = started(["-m", str(model), "--rounds", "100000", *SMALL[:4]], tmp_path)
    until(lambda: model.name in Path(f"/proc/{child.pid}/maps").read_text())
    with within(2.5):
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, error) == (130, "", "")
