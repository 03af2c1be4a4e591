"""NVIDIA GPUs, through the driver's own library (nvidia-ml-py).

An absent library, driver or GPU is ordinary. Nothing is changed on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.machine.types import Gpu, GpuUser, Problem

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _AMD = "0x10de", "0x1002"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MEMORY_CLOCK = 2
"""NVML_CLOCK_MEM"""
_GENERATIONS = 8
"""Parents of a process that are looked at."""


def gpus(pci: Path = _PCI) -> tuple[tuple[Gpu, ...], list[Problem], list[str]]:
    """GPUs, what is missing to use them, and what could not be found out."""
    vendors = _display_vendors(pci)
    notes = ["An AMD GPU is here; ktchat uses NVIDIA GPUs only"] if _AMD in vendors else []
    try:
        import pynvml
    except ImportError:
        if _NVIDIA not in vendors:
            return (), [], [*notes, "No NVIDIA GPU was found"]
        return (), [Problem("The NVIDIA GPU cannot be asked: nvidia-ml-py", "nvidia-ml-py")], notes
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if _NVIDIA not in vendors:
            return (), [], [*notes, "No NVIDIA GPU was found"]
        why = f"An NVIDIA GPU is here, but its driver does not answer ({_text(error)})"
        updated = "mismatch" in str(error)  # the driver, since the computer was started
        fix = "sudo reboot" if updated else "sudo apt install nvidia-driver"
        return (), [Problem(why, fix)], notes
    try:
        found, failed = _all(pynvml)
    except (pynvml.NVMLError, AttributeError) as error:  # a library of another age
        return (), [], [*notes, f"The GPUs cannot be asked: {_text(error)}"]
    finally:
        pynvml.nvmlShutdown()
    return found, [], notes + failed


def _all(nvml: Any) -> tuple[tuple[Gpu, ...], list[str]]:
    ask = _Asker(nvml)
    driver = _string(ask("", nvml.nvmlSystemGetDriverVersion))
    found, notes = [], []
    count = nvml.nvmlDeviceGetCount()
    shown = visible([_uuid(ask, index) for index in range(count)], os.environ.get(_VISIBLE))
    if len(shown) < count:
        notes.append(f"{_VISIBLE} shows {len(shown)} of {count} GPUs")
    for index in shown:
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            notes.append(f"GPU {index} does not answer: {_text(error)}")
            continue
        found.append(_describe(ask, handle, memory, driver))
    return tuple(found), notes or ([] if found else ["No NVIDIA GPU was found"])


def short_name(name: str) -> str:
    """What people call a GPU: `RTX 4090` where its driver says `NVIDIA GeForce RTX 4090`."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ") or name


def visible(uuids: Sequence[str], setting: str | None) -> list[int]:
    """GPUs, in the order of the driver, as CUDA_VISIBLE_DEVICES shows them; None shows all of them.

    As CUDA reads it: numbers, or beginnings of ids; nothing counts from the first wrong entry on. The
    engine counts in PCI order, as the driver does (CUDA_DEVICE_ORDER=PCI_BUS_ID).
    """
    if setting is None:
        return list(range(len(uuids)))
    out: list[int] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isascii() and entry.isdigit():
            matching = [int(entry)] if int(entry) < len(uuids) else []
        else:
            known = enumerate(uuids)
            matching = [n for n, uuid in known if entry and uuid.lower().startswith(entry.lower())]
        if len(matching) != 1 or matching[0] in out:
            break
        out += matching
    return out


def _uuid(ask: _Asker, index: int) -> str:
    def uuid() -> Any:
        return ask.nvml.nvmlDeviceGetUUID(ask.nvml.nvmlDeviceGetHandleByIndex(index))

    return _string(ask("", uuid))


def _describe(ask: _Asker, handle: Any, memory: Any, driver: str) -> Gpu:
    nvml = ask.nvml
    compute = ask((0, 0), nvml.nvmlDeviceGetCudaComputeCapability, handle)
    users, ours = _users(ask, handle)
    return Gpu(
        name=short_name(_string(ask("GPU", nvml.nvmlDeviceGetName, handle))),
        total=int(memory.total),
        # What our own engine holds is there for the next model.
        free=min(int(memory.total), int(memory.free) + ours),
        driver=driver,
        compute=f"{compute[0]}.{compute[1]}" if compute[0] else "",
        # The present link sleeps while the GPU idles; what it can reach is what matters.
        pcie_gen=int(ask(0, nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)),
        pcie_width=int(ask(0, nvml.nvmlDeviceGetMaxPcieLinkWidth, handle)),
        display=bool(ask(0, nvml.nvmlDeviceGetDisplayActive, handle)),
        users=users,
        read_gb_s=_read_gb_s(ask, handle),
    )


def _read_gb_s(ask: _Asker, handle: Any) -> float:
    """Two transfers a clock over the width of the bus: 10501 MHz and 384 bits are 1008 GB/s."""
    clock = ask(0, ask.nvml.nvmlDeviceGetMaxClockInfo, handle, _MEMORY_CLOCK)
    width = ask(0, ask.nvml.nvmlDeviceGetMemoryBusWidth, handle)
    return round(2 * float(clock) * 1e6 * float(width) / 8 / 1e9, 1)


def _users(ask: _Asker, handle: Any) -> tuple[tuple[GpuUser, ...], int]:
    """Other programs with memory of the GPU, largest first, and the bytes that our processes hold.

    A container may not see names, and sees other numbers of processes than the driver.
    """
    nvml = ask.nvml
    seen: dict[int, int] = {}
    own: dict[int, int] = {}
    for query in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for process in ask([], query, handle):
            where = own if _is_ours(process.pid) else seen
            where[process.pid] = max(where.get(process.pid, 0), process.usedGpuMemory or 0)
    users = []
    for pid, size in seen.items():
        name = _string(ask("", nvml.nvmlSystemGetProcessName, pid))
        users.append(GpuUser(Path(name.split(" ")[0]).name or f"process {pid}", size))
    return tuple(sorted(users, key=lambda user: -user.bytes)), sum(own.values())


def _is_ours(pid: int) -> bool:
    """Whether this is our process or one that it started, such as the engine."""
    for _ in range(_GENERATIONS):
        if pid == os.getpid():
            return True
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            pid = int(stat.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False


class _Asker:
    """Asks the driver one thing; the default when it does not say."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml

    def __call__(self, default: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self.nvml.NVMLError:
            return default


def _display_vendors(folder: Path) -> set[str]:
    """PCI vendors of the display controllers and accelerators."""
    vendors = set()
    try:
        for device in folder.iterdir():
            kind = (device / "class").read_text().strip()
            if kind.startswith("0x03"):
                vendors.add((device / "vendor").read_text().strip())
    except OSError:
        return vendors
    return vendors


def _string(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _text(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
