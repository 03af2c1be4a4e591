"""Installed packages that decide what can run, without importing any of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
from pathlib import Path

from engine.common.packages import LLAMA_CPP, pip, python
from engine.machine.types import Gpu, Hardware, Problem, Software

_FOR_GPU = {"torch": "torch>=2.11", "triton": "triton>=3.6"}
"""What work on the GPU needs, as pip knows it; the extra `gpu` of pyproject.toml says the same."""
_FASTER = {"flashinfer": "flashinfer-python>=0.6.16"}
"""What it can do without; the extra `flash`."""
_GPU_LIBRARIES = ("libggml-cuda", "libggml-vulkan", "libggml-hip", "libggml-sycl")


def software() -> Software:
    """What is installed."""
    from kernels.cpu.build import library_path

    return Software(
        llama_cpp=_version("llama-cpp-python"),
        llama_cpp_gpu=_has_gpu_backend(),
        torch=_version("torch"),
        torch_cuda=_torch_cuda(),
        triton=_version("triton"),
        flashinfer=_version("flashinfer-python"),
        native=library_path().exists(),
    )


def problems(found: Software, gpus: tuple[Gpu, ...]) -> list[Problem]:
    """What is missing, each with the command that brings it."""
    out = []
    if not found.native:
        out.append(Problem("Our CPU kernels are not built", f"{python()} -m kernels.cpu.build"))
    if not found.llama_cpp:
        what = "llama.cpp is not installed: models that our engine does not run, verify and bench --vs need it"
        out.append(Problem(what, pip(LLAMA_CPP)))
    if not any(gpu.usable for gpu in gpus):
        return out
    problem = gpu_problem(found)
    if problem is not None:
        out.append(problem)
    elif not found.flashinfer:
        what = "flashinfer is not installed: our own attention kernels take its place"
        out.append(Problem(what, pip(shlex.quote(_FASTER["flashinfer"]))))
    return out


def gpu_problem(found: Software) -> Problem | None:
    """What keeps our engine from the GPU, with the command that mends it; None: nothing does."""
    absent = [name for name in _FOR_GPU if not getattr(found, name)]
    if absent:
        return Problem(
            f"Not installed for work on the GPU: {', '.join(absent)}",
            pip(" ".join(shlex.quote(_FOR_GPU[name]) for name in absent)),
        )
    if not found.torch_cuda:
        return Problem(
            f"torch {found.torch} was built for the CPU only",
            pip(f"--force-reinstall {' '.join(map(shlex.quote, _FOR_GPU.values()))}"),
        )
    return None


def gpu_obstacle(hardware: Hardware) -> Problem | None:
    """Why our engine cannot compute on this machine's GPUs; None: it can.

    Of a machine that a profile describes, the software is taken to be complete.
    """
    if not hardware.gpus:
        return Problem("No NVIDIA GPU was found")
    if not any(gpu.usable for gpu in hardware.gpus):
        known = ", ".join(f"{gpu.name} has {gpu.compute or 'none known'}" for gpu in hardware.gpus)
        return Problem(f"Compute capability 8.0 or higher is needed: {known}")
    return None if hardware.assumed else gpu_problem(hardware.software)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


_CUDA_LINE = re.compile(r"^cuda\b[^=\n]*=\s*['\"]([0-9.]+)['\"]", re.MULTILINE)


def _torch_cuda() -> str:
    """The CUDA version in torch's version.py; wheels of PyPI do not say it in their version."""
    try:
        found = importlib.util.find_spec("torch")  # finds it without importing it
        folder = (found.submodule_search_locations or [""])[0] if found else ""
        text = Path(folder, "version.py").read_text() if folder else ""
    except (ImportError, OSError, ValueError):
        return ""
    match = _CUDA_LINE.search(text)
    return match[1] if match else ""


def _has_gpu_backend() -> bool:
    from kernels.ggml import library_dir

    try:
        names = [path.name for path in library_dir().iterdir()]
    except (ImportError, OSError, ValueError):
        return False
    return any(name.startswith(_GPU_LIBRARIES) for name in names)
