"""A GPU that computes something else is found out before a model goes there, and asked only once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.common import measurements
from engine.machine.types import Gpu, Hardware, Software
from engine.runtimes.gpu_selftest import ALLOWED, GpuDiffersError, check_gpu, difference
from tests.support.simulated_device import SimulatedDevice

HARDWARE = Hardware(
    gpus=(Gpu("card", 1 << 34, 1 << 34, driver="1"),), software=Software(torch="2", triton="3")
)


class Counted:
    """Opens devices of a kind, and counts them."""

    def __init__(self, kind: type[SimulatedDevice] = SimulatedDevice) -> None:
        self.kind, self.opened, self.said = kind, 0, []  # type: ignore[var-annotated]

    def __call__(self, gpu: int) -> SimulatedDevice:
        self.opened += 1
        return self.kind()

    def check(self, hardware: Hardware = HARDWARE) -> None:
        check_gpu(0, hardware, self, self.said.append)


class Blind(SimulatedDevice):
    """A decoded token does not see itself."""

    def attention(self, q: Any, *rest: Any) -> Any:
        *others, start, window, sinks = rest
        return super().attention(q, *others, max(0, start - (len(q) == 1)), window, sinks)


class Deaf(SimulatedDevice):
    """The host's results are lost in every other layer."""

    lost = False

    def wait(self, request: Any, residual: Any) -> None:
        self.lost = not self.lost
        if not self.lost:
            super().wait(request, residual)
        else:
            super().wait(request, residual.clone())


@pytest.fixture(autouse=True)
def empty_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "cache_folder", lambda: tmp_path)


@pytest.mark.parametrize("experts", ALLOWED)
def test_a_right_device_is_far_from_the_bar(experts: float) -> None:
    assert difference(0, experts, Counted()) < ALLOWED[experts] / 5


def test_a_gpu_is_tried_once_for_its_versions() -> None:
    devices = Counted()
    devices.check()
    assert devices.opened == len(ALLOWED) and len(devices.said) == 1
    devices.check()
    assert devices.opened == len(ALLOWED)
    devices.check(replace(HARDWARE, software=Software(torch="2.1", triton="3")))
    assert devices.opened == 2 * len(ALLOWED)


@pytest.mark.parametrize(("kind", "where"), [(Blind, "on the GPU"), (Deaf, "on both sides")])
def test_a_wrong_device_is_refused_and_asked_again(kind: type[SimulatedDevice], where: str) -> None:
    devices = Counted(kind)
    for _ in range(2):
        with pytest.raises(GpuDiffersError, match=where) as error:
            devices.check()
    assert "card" in error.value.what and "--device cpu" in error.value.todo
    Counted().check()  # mended, the same versions: it is tried and believed
