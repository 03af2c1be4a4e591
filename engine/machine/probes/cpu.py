"""The processor: its name, its cores, and the instructions that our kernels can use."""

from __future__ import annotations

import platform
from pathlib import Path

from engine.machine.types import Cpu
from kernels.cpu.cores import default_threads

_CPUINFO = Path("/proc/cpuinfo")
_NODES = Path("/sys/devices/system/node")

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
_AVX2 = frozenset({"avx2", "fma", "f16c"})
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def cpu(cpuinfo: Path = _CPUINFO, nodes: Path = _NODES) -> tuple[Cpu, list[str]]:
    """The processor, and what could not be found out."""
    notes = []
    fields: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key.strip(), value.strip())
    except OSError as error:
        notes.append(f"The processor is not known: {cpuinfo}: {error.strerror}")
    flags = frozenset(fields.get("flags", "").split())
    isa = "avx512" if flags >= _AVX512 else "avx2" if flags >= _AVX2 else "plain"
    found = Cpu(
        model=fields.get("model name", "") or platform.machine(),
        cores=default_threads(),
        isa=isa,
        vnni=bool(flags & _VNNI),
        numa_nodes=_nodes(nodes),
    )
    return found, notes


def _nodes(folder: Path) -> int:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return 1
    return max(1, sum(name.startswith("node") and name[4:].isdigit() for name in names))
