"""What a measurement was made on: processor, instruction set, memory, versions and day."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from engine.evaluation.llama_cpp_reference import BASELINE, baseline_version
from engine.machine.probes.cpu import cpu
from engine.machine.probes.memory import memory


@dataclass(frozen=True, slots=True)
class Conditions:
    """Empty or 0: not known."""

    date: str = ""
    processor: str = ""
    isa: str = ""
    """The instruction set of our kernels, as `KTCHAT_ISA` names it."""
    cores: int = 0
    memory_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)


def conditions() -> Conditions:
    """Those of this machine and this installation, today."""
    from kernels.cpu.native import choose_isa

    processor = cpu()[0]
    return Conditions(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        processor=processor.model,
        isa=choose_isa(),
        cores=processor.cores,
        memory_bytes=memory()[0].total,
        versions={"ktchat": _version("ktchat"), BASELINE: baseline_version()},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder without being installed
        return ""
