"""`ktchat doctor` and GPUs that are tried: what it says of them, and when it does not try."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import pytest

from engine.machine import gpu_trial
from engine.machine.gpu_trial import GpuFacts
from engine.machine.types import Gpu, Hardware, Software
from ktchat.cli import main
from ktchat.library import plans

GB = 10**9
COMPLETE = Software("0.3.36", torch="2.13.0", torch_cuda="13.0", triton="3.7", native=True)
NEW = Gpu("RTX 4090", 24 * GB, 23 * GB, compute="8.9")
OLD = Gpu("GTX 1080", 8 * GB, 8 * GB, compute="6.1")
MACHINE = Hardware(gpus=(NEW,), software=COMPLETE)
CARD = GpuFacts("NVIDIA GeForce RTX 4090", "host functions", "flashinfer", 920.0, 24.1)
BROKEN = GpuFacts(CARD.name, error="RuntimeError: no kernel image")


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(monkeypatch, capsys)


class Doctor:
    """The command on a machine made up; `tried` counts how often its GPUs were tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys, self.tried = monkeypatch, capsys, 0

    def says(self, machine: Hardware, facts: Sequence[GpuFacts], *arguments: str) -> str:
        def ask() -> list[GpuFacts]:
            self.tried += 1
            return list(facts)

        self._monkeypatch.setattr(plans, "machine", lambda measure, fresh: machine)
        self._monkeypatch.setattr(gpu_trial, "ask", ask)
        assert main(["doctor", *arguments]) == 0
        return self._capsys.readouterr().out


def test_a_gpu_that_computes_is_described(doctor: Doctor) -> None:
    lines = doctor.says(MACHINE, [CARD]).splitlines()
    assert (
        "GPU tried        RTX 4090 computes · hands over by host functions · attention by flashinfer"
        " · reads 920 GB/s · receives 24 GB/s over PCIe"
    ) in lines
    assert "GPU use          ktchat computes on the GPU" in lines


def test_a_gpu_that_fails_is_a_problem_with_a_way_on(doctor: Doctor) -> None:
    said = doctor.says(MACHINE, [BROKEN])
    assert "missing          RTX 4090 does not compute: RuntimeError: no kernel image" in said
    assert "ktchat --device cpu" in said and "computes on the GPU" not in said
    found = json.loads(doctor.says(MACHINE, [BROKEN], "--json"))
    assert found["gpu_facts"] == [dataclasses.asdict(BROKEN)]
    assert found["problems"][-1]["fix"] == "ktchat --device cpu"
    one_of_two = doctor.says(dataclasses.replace(MACHINE, gpus=(NEW, NEW)), [CARD, BROKEN])
    assert "GPU tried        RTX 4090 computes" in one_of_two and "no kernel image" in one_of_two


def test_an_old_gpu_beside_a_new_one_is_no_fault(doctor: Doctor) -> None:
    mixed = dataclasses.replace(MACHINE, gpus=(OLD, NEW))
    said = doctor.says(mixed, [dataclasses.replace(BROKEN, name="GTX 1080"), CARD])
    assert "does not compute" not in said and "but not on GTX 1080" in said
    assert "GPU tried        RTX 4090 computes" in said


@pytest.mark.parametrize(
    ("machine", "arguments"),
    [
        (MACHINE, ["--no-gpu-check"]),
        (MACHINE, ["--profile", "4090-64gb"]),
        (dataclasses.replace(MACHINE, use_gpus=False), []),
        (dataclasses.replace(MACHINE, gpus=(OLD,)), []),
        (dataclasses.replace(MACHINE, gpus=()), []),
        (dataclasses.replace(MACHINE, software=Software("0.3.36", torch="2.13.0")), []),
    ],
)
def test_a_gpu_that_would_not_be_used_is_not_tried(
    doctor: Doctor, machine: Hardware, arguments: list[str]
) -> None:
    assert "GPU tried" not in doctor.says(machine, [CARD], *arguments)
    assert json.loads(doctor.says(machine, [CARD], *arguments, "--json"))["gpu_facts"] == []
    assert doctor.tried == 0
