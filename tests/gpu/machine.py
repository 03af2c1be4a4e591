"""What the machine is: `python -m tests.gpu.machine versions`, or `context` for what CUDA takes of the VRAM."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from tests.gpu.children import tell

PACKAGES = ("torch", "triton", "numpy", "gguf", "llama-cpp-python", "pytest", "nvidia-ml-py")
TOOLS = ("g++", "nvcc", "compute-sanitizer", "ncu", "cmake")


def versions() -> None:
    """Packages, tools, the GPU, its driver, clocks and free memory."""
    tell({"name": "python", "version": platform.python_version(), "cores": os.cpu_count()})
    tell({"name": "packages"} | {name: _version(name) for name in PACKAGES})
    tell({"name": "tools"} | {name: shutil.which(name) for name in TOOLS})
    query = "name,driver_version,memory.total,memory.free,clocks.sm,clocks.mem,clocks.max.sm,pcie.link.gen.max,pcie.link.width.max,power.limit"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    tell({"name": "nvidia-smi", "query": query, "says": done.stdout.strip() or done.stderr.strip()})
    import torch

    tell({"name": "torch", "cuda": torch.version.cuda, "available": torch.cuda.is_available()})
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    properties: Any = torch.cuda.get_device_properties(0)
    tell(
        {"name": "device", "is": properties.name, "multiprocessors": properties.multi_processor_count}
        | {"compute": f"{properties.major}.{properties.minor}", "bytes": properties.total_memory}
        | {"l2_bytes": properties.L2_cache_size}
    )  # fmt: skip


def context() -> None:
    """Bytes of VRAM that this process takes step by step: what a plan counts as `CONTEXT`, `CUBLAS`, `GRAPHS`."""
    from engine.plan import gpu_footprint

    free = _Free()
    import torch

    torch.cuda.init()
    x = torch.zeros(256, 256, device="cuda")
    torch.cuda.synchronize()
    tell({"name": "context", "bytes": free.taken(), "planned": gpu_footprint.CONTEXT})
    torch.softmax(torch.sort(x.half()).values.cumsum(0), 0)
    torch.cuda.synchronize()
    tell({"name": "torch's kernels", "bytes": free.taken()})
    _ = x @ x
    torch.cuda.synchronize()
    tell({"name": "cublas", "bytes": free.taken(), "planned": gpu_footprint.CUBLAS})


class _Free:
    """What the driver says is free, through its own library: asking torch would start CUDA."""

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._last = self._now()

    def taken(self) -> int:
        """Bytes since the last call."""
        before, self._last = self._last, self._now()
        return before - self._last

    def _now(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).free)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    {"versions": versions, "context": context}[sys.argv[1]]()
