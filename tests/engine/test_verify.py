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
from engine.evaluation.fidelity import Ratio, comparison, position, ratio
from engine.spec.spec import ModelSpec
from kernels.cpu import CpuOps
from kernels.cpu.step import Step
from ktchat.cli import main
from tests.support.tiny import quantise, tiny_model


@pytest.fixture(scope="module")
def model(models: Path) -> Path:
    return tiny_model("qwen3moe", models)


@pytest.mark.parametrize(
    ("architecture", "variant", "type_name"),
    [
        ("qwen3moe", "qwen3moe", "Q4_K"),
        ("deepseek2", "v3-split", "Q6_K"),
        ("deepseek2", "v2-lite", "Q8_0"),
        ("llama", "pieces", "F16"),
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
    assert result.tokens == 320
    assert 0 < result.ours.total.nmse < 0.05
    assert result.ours.total.top1 > 0.85
    names = dict.fromkeys(name for name, _, _ in stages)
    assert list(names) == ["float32", "ktchat", "llama.cpp"]
    assert all((name, whole, whole) in stages for name, _, whole in stages)


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
    assert "verify needs torch, which is not installed. pip install" in capsys.readouterr().err


def test_torch_is_imported_only_while_verifying() -> None:
    code = (
        "import sys, engine.evaluation.verify, ktchat.cli.verify; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_of_known_logits() -> None:
    expected = np.array([1.0, 2.0, -1.0], np.float32)
    same = position(expected, expected)
    shifted = position(expected + np.float32(0.5), expected)
    other = position(np.array([2.0, 1.0, -1.0], np.float32), expected)
    assert same == (0, 2, 0, True)
    assert shifted[0] == 0.25
    assert shifted[2] == pytest.approx(0, abs=1e-7), "a constant changes no probability"
    p = np.exp(expected) / np.exp(expected).sum()
    assert other[2] == pytest.approx((p[1] - p[0]) * 1.0, rel=1e-5)
    assert other[3] is False
    errors = comparison([same, shifted], [other])
    assert errors.prefill.nmse == pytest.approx(0.0625)
    assert errors.total.top1 == pytest.approx(2 / 3)
    assert errors.decode.max_kl == errors.decode.mean_kl == other[2]


def test_a_ratio_knows_its_doubt() -> None:
    rng = np.random.default_rng(0)

    def positions(scale: float, count: int) -> list[tuple[float, float, float, bool]]:
        return [(scale * float(np.exp(rng.normal())), 1.0, 0.0, True) for _ in range(count)]

    alike = ratio(positions(1e-4, 300), positions(1e-4, 300))
    worse = ratio(positions(2e-4, 300), positions(1e-4, 300))
    assert alike.value == pytest.approx(1, abs=0.2)
    assert alike.allowed
    assert worse.value == pytest.approx(2, rel=0.2)
    assert not worse.allowed
    assert ratio([], []) == Ratio(1.0, 1.0)
    assert ratio(positions(1e-15, 9), positions(1e-17, 9)).allowed, "both are float32's rounding"
