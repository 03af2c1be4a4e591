"""What others compute is told from what we do, on the CPUs that are ours to use."""

import os
from pathlib import Path

import pytest

from engine.machine.probes.cpu_time import CpuTime, cpu_time

TICK = os.sysconf("SC_CLK_TCK")


def process(proc: Path, number: int, parent: int, *ticks: int, name: str = "python") -> None:
    """Ticks: user, system, and the same of children that ended."""
    folder = proc / str(number)
    folder.mkdir(exist_ok=True)
    counted = " ".join(map(str, ticks))
    (folder / "stat").write_text(f"{number} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {counted} 20 0")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    me = os.getpid()
    process(tmp_path, me, 1, 10, 5, 0, 0)
    process(tmp_path, me + 1, me, 7, 0, 2, 1, name="a) odd (name")
    process(tmp_path, me + 2, me + 1, 3, 0, 0, 0)
    process(tmp_path, 1, 0, 500, 500, 0, 0)
    (tmp_path / "stat").write_text(
        "cpu  999 999 999 999 999 999 999 999 0 0\n"
        "cpu0 100 20 30 4000 50 1 2 3 100 20\n"
        "cpu1 10 0 0 4000 0 0 0 0 0 0\n"
        "cpu10 900 0 0 0 0 0 0 0 0 0\nintr 1 2\n"
    )
    return tmp_path


def test_our_processes_are_told_from_all_others(proc: Path) -> None:
    found = cpu_time(proc, cpus=[0, 1])
    assert found is not None
    assert found.all * TICK == pytest.approx(100 + 20 + 30 + 1 + 2 + 3 + 10)
    assert found.own * TICK == pytest.approx(15 + 10 + 3)
    only = cpu_time(proc, cpus=[1])
    assert only is not None and only.all * TICK == pytest.approx(10)


def test_others_are_what_is_left_a_second() -> None:
    before, after = CpuTime(10.0, 100.0, 40.0), CpuTime(14.0, 107.0, 46.0)
    assert after.others_since(before) == pytest.approx(0.25)
    assert before.others_since(before) == 0.0
    assert CpuTime(11.0, 100.0, 41.0).others_since(before) == 0.0, "ticks are not exact"


def test_a_system_that_does_not_say_is_not_guessed(tmp_path: Path, proc: Path) -> None:
    assert cpu_time(tmp_path / "nowhere") is None
    assert cpu_time(proc, cpus=[77]) is None
    assert cpu_time() is not None
