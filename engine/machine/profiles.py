"""Machines described in files: the shipped profiles, or one that `ktchat doctor --json` wrote.

Fields are checked for type and bounds. Nothing of this machine gets into a profile.
"""

from __future__ import annotations

from pathlib import Path

from engine.common.json_files import DataFileError, Fields, assets_folder, read_json
from engine.machine.types import ISA_WORDS, Cpu, Disk, Gpu, GpuUser, Hardware, Memory

MAX_BYTES = 1 << 50
MAX_THREADS = 4096
MAX_GPUS = 16


def names() -> list[str]:
    """The profiles that come with ktchat."""
    return sorted(path.stem for path in (assets_folder() / "profiles").glob("*.json"))


def load(name: str) -> Hardware:
    """A shipped profile by name, or the one in a file. Raises `DataFileError`."""
    known = names()
    if name in known:
        return _read(assets_folder() / "profiles" / f"{name}.json")
    path = Path(name)
    if not path.is_file():
        raise DataFileError(
            f"There is no profile {ascii(name)[1:-1]}",
            f"The profiles are {', '.join(known)}",
            "Name one of them, or a file that `ktchat doctor --json` wrote",
        )
    return _read(path)


def _read(path: Path) -> Hardware:
    fields = read_json(path)
    memory = _memory(fields.object("memory"))
    gpus = [_gpu(gpu) for gpu in fields.objects("gpus")]
    if len(gpus) > MAX_GPUS:
        raise fields.fault("gpus", f"has more than {MAX_GPUS} entries")
    disk = fields.object("disk")
    name = fields.text("name", path.stem)
    return Hardware(
        name=path.stem if name == "this machine" else name,
        cpu=_cpu(fields.object("cpu")),
        memory=memory,
        gpus=tuple(gpus),
        disk=Disk(
            disk.text("folder", ""),
            disk.whole("free", 0, MAX_BYTES, 0),
            disk.real("read_gb_s", 0, 1e4, 0),
        ),
        assumed=fields.text("assumed", "") or f"as {ascii(path.name)[1:-1]} describes it",
    )


def _cpu(fields: Fields) -> Cpu:
    isa = fields.text("isa", "plain")
    if isa not in ISA_WORDS:
        raise fields.fault("isa", f"is not one of {', '.join(ISA_WORDS)}")
    return Cpu(
        fields.text("model", ""),
        fields.whole("cores", 1, MAX_THREADS),
        isa,
        fields.flag("vnni", False),
        fields.whole("numa_nodes", 1, 1024, 1),
    )


def _memory(fields: Fields) -> Memory:
    total = fields.whole("total", 1, MAX_BYTES)
    speeds = fields.object("read_gb_s")
    pairs = []
    for count in speeds.names():
        if not (count.isascii() and count.isdigit() and 0 < int(count[:6]) <= MAX_THREADS):
            raise speeds.fault(count, "is not a number of threads")
        pairs.append((int(count[:6]), speeds.real(count, 0.01, 1e5)))
    available = fields.whole("available", 1, total, total)
    return Memory(total, available, tuple(sorted(pairs)))


def _gpu(fields: Fields) -> Gpu:
    total = fields.whole("total", 1, MAX_BYTES)
    return Gpu(
        name=fields.text("name"),
        total=total,
        free=fields.whole("free", 0, total, total),
        driver=fields.text("driver", ""),
        compute=fields.text("compute", ""),
        pcie_gen=fields.whole("pcie_gen", 0, 16, 0),
        pcie_width=fields.whole("pcie_width", 0, 32, 0),
        display=fields.flag("display", False),
        users=tuple(
            GpuUser(user.text("name"), user.whole("bytes", 0, MAX_BYTES))
            for user in fields.objects("users")
        ),
        read_gb_s=fields.real("read_gb_s", 0, 1e5, 0),
    )
