"""This machine, looked at part by part; every part may fail by itself and then says so.

Measured speeds are cached. The parts are in `engine.machine.probes`, the types in
`engine.machine.types`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from engine.common import measurements
from engine.common.packages import pip
from engine.machine.probes import bandwidth
from engine.machine.probes import cpu as cpu_probe
from engine.machine.probes import disk as disk_probe
from engine.machine.probes import gpu as gpu_probe
from engine.machine.probes import memory as memory_probe
from engine.machine.probes import software as software_probe
from engine.machine.probes.memory import available_memory
from engine.machine.types import Cpu, Disk, Gpu, GpuUser, Hardware, Memory, Problem, Software

__all__ = [
    "Cpu",
    "Disk",
    "Gpu",
    "GpuUser",
    "Hardware",
    "Memory",
    "Problem",
    "Software",
    "available_memory",
    "here",
    "machine_key",
    "probe",
]

_MEASURED = "machine"
"""The cached measurements of this machine's speeds."""


def probe(models: Path | None = None, *, measure: bool = True, fresh: bool = False) -> Hardware:
    """This machine. `models` is the folder where models live.

    Speeds of memory and disk are measured once (up to 2.5 s) and kept; `fresh` measures again,
    without `measure` only what is kept is used. Takes tens of milliseconds otherwise. Never raises.
    """
    folder = _folder(models)
    cpu, notes = cpu_probe.cpu()
    memory, memory_notes = memory_probe.memory()
    gpus, gpu_problems, gpu_notes = gpu_probe.gpus()
    free, disk_notes = disk_probe.free_space(folder)
    software = software_probe.software()
    speeds, speed_notes = _speeds(machine_key(cpu, memory), folder, cpu.cores, measure, fresh)
    return Hardware(
        cpu=cpu,
        memory=dataclasses.replace(memory, read_gb_s=speeds.memory),
        gpus=gpus,
        disk=Disk(str(folder), free, speeds.disk),
        software=software,
        problems=(
            *(_with_pip(problem) for problem in gpu_problems),
            *software_probe.problems(software, gpus),
        ),
        notes=(*notes, *memory_notes, *gpu_notes, *disk_notes, *speed_notes),
    )


def here() -> Hardware:
    """The processor and the memory alone, which take a few milliseconds: what measurements belong to, and the
    memory's speed where it was measured."""
    (memory, _), (cpu, _) = memory_probe.memory(), cpu_probe.cpu()
    speeds, _ = _speeds(machine_key(cpu, memory), Path(), cpu.cores, measure=False, fresh=False)
    return Hardware(cpu=cpu, memory=dataclasses.replace(memory, read_gb_s=speeds.memory))


def _folder(models: Path | None) -> Path:
    if models is not None:
        return models
    try:
        return Path.cwd()
    except OSError:  # it was deleted
        return Path("/")


def machine_key(cpu: Cpu, memory: Memory) -> str:
    """What measurements are kept under: another processor or more memory measures again."""
    words = f"{cpu.model}|{cpu.cores}|{cpu.isa}|{round(memory.total / (1 << 30))}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class _Speeds:
    memory: tuple[tuple[int, float], ...] = ()
    disk: float = 0.0


def _speeds(
    key: str, folder: Path, cores: int, measure: bool, fresh: bool
) -> tuple[_Speeds, list[str]]:
    book = measurements.read(_MEASURED)
    kept = {} if fresh else _object(book.get(key))
    memory = _pairs(kept.get("memory_read_gb_s"))
    disks = _object(kept.get("disk_read_gb_s"))
    disk = _number(disks.get(str(folder)))
    notes: list[str] = []
    if not measure:
        if not memory:
            notes.append("The memory's speed is not measured yet: ktchat doctor measures it")
        return _Speeds(memory, disk), notes
    before = (memory, disk, kept.get("busy") is True)
    busy = before[2]
    if not memory or (busy and not _is_busy(cores)):
        busy = _is_busy(cores)
        memory, notes = bandwidth.read_speeds(cores)
    if memory and busy:
        notes.append(
            "Other programs were at work while the memory's speed was measured;"
            " it is measured again when they are quiet, and by ktchat doctor --fresh"
        )
    if not disk:
        disk, disk_notes = disk_probe.read_speed(folder)
        notes += disk_notes
    if (memory, disk, busy) != before:
        entry = {
            "memory_read_gb_s": {str(count): speed for count, speed in memory},
            "disk_read_gb_s": {**disks, str(folder): disk},
            "busy": busy,
        }
        if not measurements.write(_MEASURED, {**book, key: entry}):
            notes.append(f"Measurements cannot be kept in {measurements.cache_folder()}")
    return _Speeds(memory, disk), notes


def _is_busy(cores: int) -> bool:
    """Whether other programs have kept half the cores at work for the last minute."""
    try:
        return os.getloadavg()[0] > cores / 2
    except OSError:
        return False


def _with_pip(problem: Problem) -> Problem:
    """A probe names a missing package; the person is given the command."""
    if problem.fix == "nvidia-ml-py":
        return Problem(f"{problem.what} is not installed", pip(problem.fix))
    return problem


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e5
    return float(value) if usable else 0.0


def _pairs(value: Any) -> tuple[tuple[int, float], ...]:
    """(threads, GB/s) as kept; anything else is as if it had not been measured."""
    pairs = [(key, _number(speed)) for key, speed in _object(value).items()]
    if not all(key.isdigit() and speed for key, speed in pairs):
        return ()
    return tuple(sorted((int(key), speed) for key, speed in pairs))
