"""Installed packages that decide what can run, without importing any of them."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys

from engine.machine import Gpu, Problem, Software

_FOR_GPU = {
    "torch": "torch>=2.11",
    "triton": "triton>=3.6",
    "flashinfer": "flashinfer-python>=0.6.16",
}
"""What work on the GPU needs, as pip knows it; the extra `gpu` of pyproject.toml says the same."""
_GPU_LIBRARIES = ("libggml-cuda", "libggml-vulkan", "libggml-hip", "libggml-sycl")


def software() -> Software:
    """What is installed."""
    from kernels.cpu.build import library_path

    return Software(
        llama_cpp=_version("llama-cpp-python"),
        llama_cpp_gpu=_has_gpu_backend(),
        torch=_version("torch"),
        triton=_version("triton"),
        flashinfer=_version("flashinfer-python"),
        native=library_path().exists(),
    )


def problems(found: Software, gpus: tuple[Gpu, ...]) -> list[Problem]:
    """What is missing, each with the command that brings it."""
    out = []
    if not found.native:
        out.append(Problem("Our CPU kernels are not built", f"{_python()} -m kernels.cpu.build"))
    if not found.llama_cpp:
        out.append(Problem("llama-cpp-python is not installed", pip("llama-cpp-python==0.3.36")))
    if not gpus:
        return out
    if found.llama_cpp and not found.llama_cpp_gpu:
        command = pip(
            f"--force-reinstall --no-cache-dir --no-deps llama-cpp-python=={found.llama_cpp}"
        )
        out.append(
            Problem(
                "llama.cpp was built without CUDA: models that only it runs stay on the CPU",
                f"CMAKE_ARGS=-DGGML_CUDA=on {command}",
            )
        )
    absent = [name for name in _FOR_GPU if not getattr(found, name)]
    if absent:
        out.append(
            Problem(
                f"Not installed for work on the GPU: {', '.join(absent)}"
                " (this version computes on the CPU and does without)",
                pip(" ".join(shlex.quote(_FOR_GPU[name]) for name in absent)),
            )
        )
    return out


def pip(arguments: str) -> str:
    """The command that installs packages into this Python."""
    return f"{_python()} -m pip install {arguments}"


def _python() -> str:
    return shlex.quote(sys.executable or "python3")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _has_gpu_backend() -> bool:
    from kernels.ggml import library_dir

    try:
        names = [path.name for path in library_dir().iterdir()]
    except (ImportError, OSError, ValueError):
        return False
    return any(name.startswith(_GPU_LIBRARIES) for name in names)
