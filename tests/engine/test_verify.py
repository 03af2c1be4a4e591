"""Verification tells faithful implementations from unfaithful ones."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.evaluation import verify
from engine.evaluation.fidelity import ALLOWED, Measured, Position, comparison, positions, ratio
from engine.evaluation.sequences import LENGTH, STEPS, draw
from engine.evaluation.verification import DOUBT, ROUNDS, Verification, verification
from engine.spec.spec import ModelSpec
from engine.text.tokenizer import Tokenizer
from kernels.cpu import CpuOps
from kernels.cpu.step import Step
from ktchat.cli import main
from tests.support.tiny import quantise, tiny_model

GUIDE = Path(__file__).parents[2] / "assets" / "ktchat-guide.gguf"
GUIDE_SEED = 7
"""One that needs few sequences; all come to the same verdict."""


@pytest.fixture(scope="module")
def model(models: Path) -> Path:
    return tiny_model("qwen3moe", models)


@pytest.mark.parametrize(
    ("architecture", "variant", "type_name"),
    [
        ("qwen3moe", "qwen3moe", "Q4_K"),
        ("deepseek2", "v3-split", "Q6_K"),
        ("llama", "pieces", "F16"),
        ("qwen35moe", "qwen35moe", "Q4_K"),
    ],
)
def test_our_engine_is_faithful(
    architecture: str, variant: str, type_name: str, models: Path
) -> None:
    path = tiny_model(architecture, models, variant=variant, expert_type="F32")
    stages: list[tuple[str, int, int]] = []
    path = quantise(path, type_name, only_experts=False)
    result = verify.verify(path, 1, lambda *stage: stages.append(stage))
    assert result.faithful, result
    assert result.verdict.startswith("faithful: our error is ")
    assert (result.sequences, result.tokens) == (ROUNDS[0], ROUNDS[0] * LENGTH)
    assert 0 < result.ours.total.nmse < 0.05
    assert result.ours.total.top1 > 0.85
    stage = f"sequences 1 to {ROUNDS[0]}: "
    names = [name.removeprefix(stage) for name, _, _ in stages]
    each = [
        name + part for name in ("float32", "ktchat", "llama.cpp") for part in (", loading", "")
    ]
    assert list(dict.fromkeys(names)) == each
    assert all((name, whole, whole) in stages for name, _, whole in stages)


@pytest.mark.slow
def test_the_guide_is_faithful() -> None:
    result = verify.verify(GUIDE, 1, seed=GUIDE_SEED)
    assert result.faithful, result.verdict
    assert 0.9 < result.ratio < ALLOWED


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(5))
def test_the_guide_is_faithful_whatever_is_read(seed: int) -> None:
    result = verify.verify(GUIDE, 1, seed=seed)
    assert result.faithful, result.verdict


def test_a_small_fault_in_the_experts_is_found(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = CpuOps.moe_add

    def faulty(self: CpuOps, x: Any, ids: Any, weights: Any, *rest: Any) -> None:
        plain(self, x, ids, weights * np.float32(1.01), *rest)

    monkeypatch.setattr(CpuOps, "moe_add", faulty)
    assert main(["verify", "-m", str(model), "--threads", "1"]) == 1
    shown = capsys.readouterr()
    assert "Not faithful: our error is " in shown.out
    assert shown.err == ""


def test_a_fault_that_only_decoding_has_is_found(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Step.run

    def off_by_one(self: Step, context: int, token: int, pages: Any, start: int, times: Any) -> Any:
        return plain(self, context, token, pages, start - 1, times)

    monkeypatch.setattr(Step, "run", off_by_one)
    result = verify.verify(model, 1)
    assert not result.faithful
    assert result.ours.decode.typical > 10 * result.baseline.decode.typical


def test_logits_that_are_not_numbers_are_not_faithful(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = CpuOps.to_numpy
    monkeypatch.setattr(CpuOps, "to_numpy", lambda self, x: plain(self, x) * np.nan)
    assert main(["verify", "-m", str(model), "--json", "--threads", "1"]) == 1
    figures = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert figures["verdict"] == "not faithful: some of our logits are not numbers"
    assert figures["ours"]["total"]["nmse"] is None


def test_the_json_has_both_sides(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", str(model), "--json", "--threads", "1"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["faithful"] is True
    assert (figures["seed"], figures["sequences"]) == (0, ROUNDS[0])
    assert figures["ratios"]["total"]["low"] < figures["ratio"] < figures["ratios"]["total"]["high"]
    assert (figures["peer"]["name"], figures["architecture"]) == ("llama.cpp", "qwen3moe")
    errors = {"nmse", "typical", "mean_kl", "max_kl", "top1"}
    for side in (figures["ours"], figures["peer"]):
        assert all(set(side[part]) == errors for part in ("prefill", "decode", "total"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "verify needs a model"),
        (["-m", "/nowhere/lost.gguf"], 1, "lost.gguf"),
        (["-m", __file__], 1, "is not a GGUF"),
        (["-m", "a.gguf", "--threads", "-2"], 2, "-2 threads are not possible"),
        (["-m", "a.gguf", "--seed", "-2"], 2, "-2 is no seed"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_model_that_only_llama_cpp_runs_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = verify.read_spec

    def foreign(file: Any) -> ModelSpec:
        return replace(plain(file), unsupported="gemma3 is new to us")

    monkeypatch.setattr(verify, "read_spec", foreign)
    assert main(["verify", "-m", str(model), "--threads", "1"]) == 1
    assert "Only llama.cpp runs it, so there is nothing to compare" in capsys.readouterr().err


def test_missing_torch_is_explained(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "kernels.reference", raising=False)
    assert main(["verify", "-m", str(model), "--threads", "1"]) == 1
    assert "verify needs torch, which is not installed. Install it: " in capsys.readouterr().err


def test_torch_is_imported_only_while_verifying() -> None:
    code = (
        "import sys, engine.evaluation.verify, ktchat.cli.verify; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_of_known_logits() -> None:
    expected = np.array([[1.0, 2.0, -1.0]] * 3, np.float32)
    values = expected + np.array([[0, 0, 0], [0.5, 0.5, 0.5], [1, -1, 0]], np.float32)
    same, shifted, other = positions(values, expected)
    size = 14 / 9
    assert same == (0, pytest.approx(size), 0, True)
    assert shifted == (0, pytest.approx(size), pytest.approx(0, abs=1e-15), True)
    p = np.exp(expected[0]) / np.exp(expected[0]).sum()
    assert other == (
        pytest.approx(2 / 3),
        pytest.approx(size),
        pytest.approx(p[1] - p[0], rel=1e-5),
        False,
    )
    errors = comparison([Measured([same, shifted], [other])])
    assert errors.prefill.nmse == 0
    assert errors.total.nmse == pytest.approx(2 / 14)
    assert errors.total.top1 == pytest.approx(2 / 3)
    assert errors.decode.max_kl == errors.decode.mean_kl == other[2]


def test_positions_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, expected = rng.normal(size=(2, 7, 5)).astype(np.float32)
    values[3, 2] = np.nan
    whole = positions(values, expected)
    monkeypatch.setattr("engine.evaluation.fidelity.BLOCK", 11)
    assert positions(values, expected) == whole
    assert whole[3] == (np.inf, 1.0, np.inf, False)


def _measured(rng: np.random.Generator, scale: float, spread: float) -> list[Measured]:
    """Sequences whose errors are `scale`, with a factor for each sequence and one for each position."""

    def errors(count: int, own: float) -> list[Position]:
        return [(1e-4 * own * float(np.exp(rng.normal())), 1.0, 0.0, True) for _ in range(count)]

    each = scale * np.exp(rng.normal(0, spread, 24))
    return [Measured(errors(128, own), errors(32, own)) for own in each]


def _found(seed: int, scale: float, spread: float) -> Verification:
    rng = np.random.default_rng(seed)
    ours, baseline = _measured(rng, scale, spread), _measured(rng, 1.0, 0.0)
    return verification("m", "llama", "F16", seed, "CPU", ours, baseline)


@pytest.mark.parametrize(
    ("scale", "spread", "faithful", "words"),
    [
        (0.7, 0.05, True, "faithful: our error is 0."),
        (1.5, 0.05, False, "not faithful: our error is 1."),
        (1.0, 0.5, None, "not enough to tell after 24 sequences: our error is "),
        (1.1, 0.5, None, "not enough to tell after 24 sequences: our error is "),
    ],
)
def test_a_noisy_run_is_no_verdict(
    scale: float, spread: float, faithful: bool | None, words: str
) -> None:
    for seed in range(5):
        found = _found(seed, scale, spread)
        assert found.faithful is faithful, found.verdict
        assert found.verdict.startswith(words)
        assert found.prefill.low <= found.prefill.value <= found.prefill.high


def test_one_sequence_that_chance_spoilt_decides_nothing() -> None:
    rng = np.random.default_rng(3)
    ours, baseline = _measured(rng, 0.8, 0.05), _measured(rng, 1.0, 0.0)
    spoilt = [(1000 * error, size, kl, same) for error, size, kl, same in ours[0].prefill]
    ours[0] = Measured(spoilt, ours[0].decode)
    assert verification("m", "llama", "F16", 0, "CPU", ours, baseline).faithful


def test_float32s_own_rounding_is_no_error() -> None:
    tiny, tinier = [(1e-15, 1.0, 0.0, True)] * 9, [(1e-17, 1.0, 0.0, True)] * 9
    assert ratio([tiny] * 12, [tinier] * 12, DOUBT / len(ROUNDS)).allowed
    assert ratio([[]], [[]], 0.1).allowed, "nothing was decoded"


def test_more_is_measured_until_it_is_enough(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[range] = []

    def measure(self: Any, sequences: Any, numbers: range) -> tuple[list[Measured], list[Measured]]:
        asked.append(numbers)
        rng = np.random.default_rng(numbers[0])
        count = len(sequences)
        return _measured(rng, 1.0, 0.6)[:count], _measured(rng, 1.0, 0.0)[:count]

    monkeypatch.setattr(verify.Engines, "measure", measure)
    monkeypatch.setattr(verify, "ROUNDS", (4, 8, 16))
    monkeypatch.setattr(verify, "LOGITS", 4 * 4 * LENGTH * 320)
    result = verify.verify(model, 1)
    assert result.faithful is None
    assert [number for numbers in asked for number in numbers] == list(range(16))
    assert max(map(len, asked)) <= 4
    asked.clear()
    monkeypatch.setattr(verify, "PATIENCE", 0)
    assert verify.verify(model, 1).sequences == 4


def test_what_is_read_is_drawn_by_the_seed(model: Path) -> None:
    tokenizer = Tokenizer.open(model)
    first, later = draw(tokenizer, 0, range(8), 1024), draw(tokenizer, 0, range(4, 8), 1024)
    other, short = draw(tokenizer, 1, range(8), 1024), draw(tokenizer, 0, range(8), 40)
    tokenizer.close()
    assert first[4:] == later
    assert all(a.tokens != b.tokens for a, b in zip(first, other, strict=True))
    assert {(len(s.tokens), s.prompt) for s in first} == {(LENGTH, LENGTH - STEPS)}
    assert {(len(s.tokens), s.prompt) for s in short} == {(40, 40 - STEPS)}
    assert len(set(first[1].tokens)) > 60, "random tokens"
