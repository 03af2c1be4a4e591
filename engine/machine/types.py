"""What a machine is, in numbers: processor, memory, GPUs, disk, software.

Only types. `engine.machine.probe` fills them from this machine, `engine.machine.profiles` from a file that
describes another one. Sizes are bytes, speeds GB/s (10^9 bytes).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

ISA_WORDS = {"avx512": "AVX-512", "avx2": "AVX2", "plain": "no AVX2"}
"""Instruction sets that our kernels know, in words."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor. `isa` is the best instruction set that our kernels can use."""

    model: str = ""
    """Empty when the system does not say."""
    cores: int = 1
    """Physical cores that we may use."""
    isa: str = "plain"
    vnni: bool = False
    """Has the dot products of 8-bit integers (AVX-512 VNNI or AVX-VNNI)."""
    numa_nodes: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM. `total` and `available` respect the limits of a container."""

    total: int = 0
    available: int = 0
    read_gb_s: tuple[tuple[int, float], ...] = ()
    """Measured reading speed: (threads, GB/s), fewest threads first; empty when not measured."""

    @property
    def best_read_gb_s(self) -> float:
        """The highest measured reading speed; 0 when there is none."""
        return max((speed for _, speed in self.read_gb_s), default=0.0)


@dataclass(frozen=True, slots=True)
class GpuUser:
    """Another program that holds memory of a GPU."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. What its driver does not say is empty or 0."""

    name: str
    total: int
    free: int
    driver: str = ""
    compute: str = ""
    """Compute capability, such as 8.9."""
    pcie_gen: int = 0
    pcie_width: int = 0
    display: bool = False
    """It draws a screen."""
    users: tuple[GpuUser, ...] = ()
    read_gb_s: float = 0.0
    """Reading speed of its memory, from clock and width of its bus: an upper bound."""

    @property
    def usable(self) -> bool:
        """Whether our kernels run on it: compute capability 8.0 or higher."""
        major, _, minor = self.compute.partition(".")
        known = (major + minor).isascii() and major.isdigit() and minor.isdigit()
        return known and (int(major), int(minor)) >= LEAST_COMPUTE

    @property
    def pcie_gb_s(self) -> float:
        """Bytes that its link can carry one way; 0 when generation or width is not known."""
        return PCIE_LANE_GB_S.get(self.pcie_gen, 0.0) * self.pcie_width


LEAST_COMPUTE = (8, 0)
"""Compute capability that our kernels need."""
PCIE_LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""A lane's speed by generation, its coding taken off."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk where models live. `read_gb_s` is 0 when it could not be measured."""

    folder: str = ""
    free: int = 0
    read_gb_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Software:
    """Versions of what is installed; empty where it is absent."""

    llama_cpp: str = ""
    llama_cpp_gpu: bool = False
    """llama.cpp was built with a GPU backend."""
    torch: str = ""
    torch_cuda: str = ""
    """The CUDA version that torch was built for; empty where it was built for the CPU only."""
    triton: str = ""
    flashinfer: str = ""
    native: bool = False
    """Our own CPU kernels are built."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is missing, and the command that brings it (empty when none does)."""

    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine. `assumed` says where the numbers of a profile come from; empty for this machine."""

    name: str = "this machine"
    cpu: Cpu = field(default_factory=Cpu)
    memory: Memory = field(default_factory=Memory)
    gpus: tuple[Gpu, ...] = ()
    disk: Disk = field(default_factory=Disk)
    software: Software = field(default_factory=Software)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be found out, and why."""
    assumed: str = ""
    use_gpus: bool = True
    """The person wants them used (the setting `device`)."""

    def freeing(self, count: int) -> Hardware:
        """The machine with `count` more bytes of RAM free: once a loaded model has made room."""
        memory = self.memory
        free = min(max(memory.total, memory.available), memory.available + max(0, count))
        return replace(self, memory=replace(memory, available=free))

    def to_dict(self) -> dict[str, Any]:
        """The machine as JSON has it; `engine.machine.profiles` reads it back."""
        out = asdict(self)
        out["memory"]["read_gb_s"] = {str(n): round(s, 2) for n, s in self.memory.read_gb_s}
        out["disk"]["read_gb_s"] = round(self.disk.read_gb_s, 3)
        return out
