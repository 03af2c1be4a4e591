"""Predicted speeds follow from bytes and bandwidth; measured ones replace them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine.common import measurements
from engine.common.units import rate
from engine.machine.types import Software
from engine.plan import report, speed
from engine.plan.planner import make_plan
from engine.plan.speed import DECODE_EFFICIENCY, predict, record_run, record_speed, token_bytes
from engine.protocol import Figures
from engine.spec.reader import read_spec
from tests.support.plans import DEEPSEEK_V3, FOREIGN, GPT_OSS, QWEN3_30B, machine, spec
from tests.support.tiny import tiny_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_decoding_is_bytes_over_bandwidth() -> None:
    model = spec()
    found = predict(model, machine(64, bandwidth=40), 8192)
    assert found.bound_words == "limited by RAM bandwidth: 40 GB/s" and not found.measured
    seconds = token_bytes(model, 8192) / (40e9 * DECODE_EFFICIENCY["native"])
    assert found.decode_tok_s == pytest.approx(1 / (seconds + 48 * speed.LAYER_SECONDS))
    twice = predict(model, machine(64, bandwidth=80), 8192).decode_tok_s
    assert twice is not None and 1.8 < twice / found.decode_tok_s < 2.0


def test_a_token_reads_active_weights_and_the_cache_before_it() -> None:
    model = spec()
    row = model.kv_bytes_per_token * 65 // 64  # with a scale for each head
    assert token_bytes(model, 2) == model.active_bytes_per_token + row
    in_8_bits = model.kv_bytes_per_token * 17 // 32
    assert token_bytes(model, 2, "q8") == model.active_bytes_per_token + in_8_bits
    assert token_bytes(model, 1 << 20) == token_bytes(model, 4096)


def test_nothing_is_predicted_from_nothing() -> None:
    unmeasured = machine(64)
    unmeasured = dataclasses.replace(
        unmeasured, memory=dataclasses.replace(unmeasured.memory, read_gb_s=())
    )
    found = predict(spec(), unmeasured, 4096)
    assert found.decode_tok_s is None and "ktchat doctor" in found.bound_words


def test_prefilling_is_limited_by_cores_or_by_reading_the_weights() -> None:
    found = predict(spec(), machine(64), 4096)
    assert found.prefill_bound_words == "limited by 8 cores"
    slow = predict(spec(DEEPSEEK_V3), machine(600, bandwidth=5), 4096)
    assert slow.prefill_bound_words == "limited by RAM bandwidth: 5.0 GB/s"
    assert slow.prefill_tok_s == pytest.approx(
        speed.PROMPT / (spec(DEEPSEEK_V3).weights_bytes / 5e9)
    )


def test_llama_cpp_has_numbers_of_its_own() -> None:
    model = spec(FOREIGN, "MXFP4")
    found = predict(model, machine(64), 4096).decode_tok_s
    seconds = token_bytes(model, 4096) / (50e9 * DECODE_EFFICIENCY["llama.cpp"])
    assert found == pytest.approx(1 / (seconds + 24 * speed.LAYER_SECONDS))


def test_measured_figures_replace_the_prediction() -> None:
    this, model = dataclasses.replace(machine(64), assumed=""), spec()
    for value in (10.0, 12.0, 50.0):
        assert record_speed(model, this, decode_tok_s=value, reply_tokens=100)
    assert record_speed(model, this, prefill_tok_s=300.0, prompt_tokens=600)
    plan = make_plan(model, this)
    assert (plan.decode_tok_s, plan.prefill_tok_s, plan.measured) == (12.0, 300.0, True)
    assert any("12.0 tok/s (measured here)" in line for line in report.words(plan))
    assert any("300 tok/s of prompt (measured here)" in line for line in report.words(plan))
    assert plan.bound_words == "limited by RAM bandwidth: 50 GB/s"


def test_measurements_belong_to_a_machine_a_shape_and_a_quantisation() -> None:
    this, model = dataclasses.replace(machine(64), assumed=""), spec()
    record_speed(model, this, decode_tok_s=10.0, reply_tokens=100)
    assert predict(spec(QWEN3_30B), this, 4096).measured
    assert not predict(spec(quant="Q6_K"), this, 4096).measured
    assert not predict(spec(GPT_OSS, "MXFP4"), this, 4096).measured
    other = dataclasses.replace(this, cpu=dataclasses.replace(this.cpu, model="another"))
    assert not predict(model, other, 4096).measured
    assert not predict(model, machine(64), 4096).measured  # a profile


def test_figures_of_the_cpu_are_not_those_of_a_gpu() -> None:
    this, model = dataclasses.replace(machine(64), assumed=""), spec()
    record_speed(model, this, decode_tok_s=10.0, reply_tokens=100)
    record_speed(model, this, device="GPU", decode_tok_s=90.0, reply_tokens=100)
    assert speed.recorded(model, this) == {"decode_tok_s": 10.0}
    assert speed.recorded(model, this, "GPU") == {"decode_tok_s": 90.0}
    assert speed.recorded(model, this, "native") == {}
    software = Software(torch="2.13.0", torch_cuda="13.0", triton="3.7")
    with_gpu = dataclasses.replace(machine(64, 24), assumed="", software=software)
    plan = make_plan(model, with_gpu)
    assert (plan.verdict, plan.decode_tok_s, plan.measured) == ("GPU", 90.0, True)
    assert "Writes 90.0 tok/s (measured here)" in " ".join(report.words(plan))
    plan = make_plan(model, with_gpu, device="cpu")
    assert (plan.verdict, plan.decode_tok_s, plan.measured) == ("CPU", 10.0, True)


def test_predictions_beyond_a_thousand_are_not_told_exactly() -> None:
    told = {5.04: "~5.0", 42.4: "~42", 999.0: "~999", 1000.0: "> 1,000", 67657.0: "> 1,000"}
    for value, words in told.items():
        assert rate(value, False) == f"{words} tok/s"
    measured = {18.44: "18.4", 99.96: "100", 2403.4: "2,403"}
    for value, words in measured.items():
        assert rate(value, True) == f"{words} tok/s"


def test_short_runs_and_nonsense_are_not_kept() -> None:
    this, model = dataclasses.replace(machine(64), assumed=""), spec()
    assert not record_speed(model, this, decode_tok_s=10.0, reply_tokens=3)
    assert not record_speed(model, this, prefill_tok_s=10.0, prompt_tokens=20)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        assert not record_speed(model, this, decode_tok_s=bad, reply_tokens=100)
    assert not predict(model, this, 4096).measured


def test_only_the_last_runs_count() -> None:
    this, model = dataclasses.replace(machine(64), assumed=""), spec()
    for value in (1.0,) * 9 + (20.0,) * speed.KEPT_RUNS:
        record_speed(model, this, decode_tok_s=value, reply_tokens=100)
    assert predict(model, this, 4096).decode_tok_s == 20.0


@pytest.mark.parametrize("damage", [3, [], {"x": 3}, {"x": {"y": [1]}}])
def test_a_damaged_notebook_does_no_harm(damage: object) -> None:
    this, model = dataclasses.replace(machine(64), assumed=""), spec()
    key = speed.machine_key(this.cpu, this.memory)
    for value in (damage, {speed.speed_key(model): damage}):
        measurements.write("speeds", {key: value})
        assert not predict(model, this, 4096).measured
        assert record_speed(model, this, decode_tok_s=5.0, reply_tokens=100)
        assert predict(model, this, 4096).decode_tok_s == 5.0


def test_a_turn_is_recorded_from_its_file(tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    turn = Figures(
        prompt_tokens=900,
        cached_tokens=100,
        reply_tokens=101,
        prefill_seconds=2.0,
        decode_seconds=4.0,
    )
    assert record_run(path, turn)
    from engine.gguf.file import GGUFFile
    from engine.machine.probe import here

    with GGUFFile.open(path) as file:
        assert speed.recorded(read_spec(file), here()) == {
            "decode_tok_s": 25.0,
            "prefill_tok_s": 400.0,
        }
    assert not record_run(tmp_path / "none.gguf", turn)
    assert not record_run(path, Figures())
