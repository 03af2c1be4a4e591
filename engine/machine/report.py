"""A machine in words: a line a part, for the command line and the first page of the wizard.

Plain text; names that come from drivers and files are not safe to draw until they are sanitised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.common.units import byte_size, gb_s
from engine.machine.probes.gpu import short_name
from engine.machine.probes.software import gpu_obstacle
from engine.machine.types import ISA_WORDS, Cpu, Disk, Gpu, Hardware, Memory, Problem, Software

if TYPE_CHECKING:
    from engine.machine.gpu_trial import GpuFacts

Line = tuple[str, str]
"""What it is about, and what there is to say."""


def lines(hardware: Hardware) -> list[Line]:
    """`("RAM", "64.0 GB, 51.2 GB free · reads 71 GB/s")` and so on: CPU, RAM, GPUs, disk."""
    gpus = [("GPU", gpu(one)) for one in hardware.gpus] or [("GPU", "none that can be used")]
    return [
        ("CPU", cpu(hardware.cpu)),
        ("RAM", memory(hardware.memory)),
        *gpus,
        ("Disk", disk(hardware.disk)),
    ]


def cpu(found: Cpu) -> str:
    """`Ryzen 9 7950X · 16 cores · AVX-512 with VNNI`."""
    parts = [found.model or "not known", f"{found.cores} core{'s' * (found.cores != 1)}"]
    parts.append(ISA_WORDS[found.isa] + (" with VNNI" if found.vnni else ""))
    if found.numa_nodes > 1:
        parts.append(f"{found.numa_nodes} memory nodes")
    return " · ".join(parts)


def memory(found: Memory) -> str:
    """`64.0 GB, 51.2 GB free · reads 71 GB/s (1 thread 30)`."""
    if not found.total:
        return "not known"
    text = f"{byte_size(found.total)}, {byte_size(found.available)} free"
    if not found.read_gb_s:
        return f"{text} · speed not measured"
    text += f" · reads {gb_s(found.best_read_gb_s)}"
    first, speed = found.read_gb_s[0]
    if len(found.read_gb_s) > 1:
        text += f" ({first} thread{'s' * (first != 1)} {gb_s(speed).removesuffix(' GB/s')})"
    return text


def pages(come: bool | None) -> Line:
    """Whether large pages came that were asked for (`engine.machine.probes.pages`)."""
    words = {
        True: "2 MiB, as asked for",
        False: "4 KiB only, which costs some speed: see /sys/kernel/mm/transparent_hugepage/enabled",
        None: "not known",
    }
    return "Memory pages", words[come]


def gpu(found: Gpu) -> str:
    """`RTX 4090 · 24.0 GB, 22.9 GB free (firefox 0.6 GB) · reads up to 1008 GB/s · PCIe 4 x16, 32 GB/s`."""
    text = f"{found.name} · {byte_size(found.total)}, {byte_size(found.free)} free"
    if found.users:
        text += (
            f" ({', '.join(f'{user.name} {byte_size(user.bytes)}' for user in found.users[:3])})"
        )
    speed = f", {gb_s(found.pcie_gb_s)}" if found.pcie_gb_s else ""
    parts = [
        f"reads up to {gb_s(found.read_gb_s)}" if found.read_gb_s else "",
        f"PCIe {found.pcie_gen} x{found.pcie_width}{speed}" if found.pcie_gen else "",
        f"compute {found.compute}" if found.compute else "",
        f"driver {found.driver}" if found.driver else "",
        "draws the screen" if found.display else "",
    ]
    return " · ".join([text, *(part for part in parts if part)])


def gpu_use(hardware: Hardware, facts: Sequence[GpuFacts] = ()) -> Line:
    """Whether our engine computes on the GPUs, and why not; the command is among the problems.

    `facts` are of GPUs that were tried.
    """
    problem = gpu_obstacle(hardware)
    if problem is not None:
        return "GPU use", f"ktchat computes on the CPU. {problem.what}"
    if not hardware.use_gpus:
        return "GPU use", "ktchat computes on the CPU: device is set to cpu"
    if facts and all(fact.error for fact in facts):
        return "GPU use", "ktchat would compute on the GPU, but that fails: see below"
    unfit = [gpu.name for gpu in hardware.gpus if not gpu.usable]
    rest = f", but not on {', '.join(unfit)}: compute capability 8.0 is needed" if unfit else ""
    return "GPU use", f"ktchat computes on the GPU{rest}"


_HANDS_OVER = {"none": "after each layer"}


def gpu_fact(fact: GpuFacts) -> str:
    """`RTX 4090 computes · hands over by host functions · attention by flashinfer · …`, or why not."""
    name = short_name(fact.name) or "The GPU"
    if fact.error:
        return f"{name} does not compute: {fact.error}"
    hands_over = _HANDS_OVER.get(fact.hand_over, f"by {fact.hand_over}")
    parts = [
        f"{name} computes",
        f"hands over {hands_over}" if fact.hand_over else "",
        f"attention by {fact.attention}" if fact.attention else "",
        f"reads {gb_s(fact.reads_gb_s)}" if fact.reads_gb_s else "",
        f"receives {gb_s(fact.receives_gb_s)} over PCIe" if fact.receives_gb_s else "",
    ]
    return " · ".join(filter(None, parts))


def gpu_faults(facts: Sequence[GpuFacts]) -> list[Problem]:
    """GPUs that were tried in vain, with the command that does without them."""
    return [Problem(gpu_fact(fact), "ktchat --device cpu") for fact in facts if fact.error]


def disk(found: Disk) -> str:
    """`412 GB free in ~/models · reads 3.1 GB/s`."""
    text = f"{byte_size(found.free)} free"
    if found.folder:
        text += f" in {found.folder}"
    return f"{text} · reads {found.read_gb_s:.1f} GB/s" if found.read_gb_s else text


def software(found: Software) -> list[Line]:
    """Versions of what decides what can run."""
    llama = found.llama_cpp or "absent"
    if found.llama_cpp:
        llama += " · built for the GPU" if found.llama_cpp_gpu else " · built for the CPU only"
    torch = found.torch or "absent"
    if found.torch:
        torch += f" · CUDA {found.torch_cuda}" if found.torch_cuda else " · built for the CPU only"
    return [
        ("CPU kernels", "built" if found.native else "not built"),
        ("llama-cpp-python", llama),
        ("torch", torch),
        ("triton", found.triton or "absent"),
        ("flashinfer", found.flashinfer or "absent"),
    ]
