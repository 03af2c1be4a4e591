"""The environment variables that a child process gets."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

_KEPT = frozenset(
    (
        *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "CC", "CXX"),
        *("LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME", "LC_COLLATE"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8"),
        *("PYTHONHASHSEED", "PYTHONWARNINGS", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "LLAMA_CPP_LIB_PATH", "GGML_NO_BACKTRACE"),
        *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH"),
        *("CUDA_CACHE_PATH", "CUDA_CACHE_DISABLE", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING"),
        *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"),
        *("TORCH_CUDA_ARCH_LIST", "TORCH_EXTENSIONS_DIR", "PYTORCH_ALLOC_CONF"),
        *("PYTORCH_CUDA_ALLOC_CONF", "TRITON_CACHE_DIR", "TRITON_HOME", "TRITON_INTERPRET"),
        *("TRITON_PTXAS_PATH", "FLASHINFER_WORKSPACE_BASE", "MALLOC_ARENA_MAX"),
        *("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"),
        *("COVERAGE_PROCESS_START", "COVERAGE_FILE"),
        *("KTCHAT_HOME", "KTCHAT_CPU_LIB", "KTCHAT_ISA", "KTCHAT_GPU_FLASH", "KTCHAT_GPU_GRAPH"),
        *("KTCHAT_FAULT", "KTCHAT_TEST_MODULES", "KTCHAT_TEST_READY"),
    )
)


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: what is known that native code and Python need, and nothing else.

    The folder of this package is put on Python's path where it is not there by itself (a checkout).
    """
    kept = {name: value for name, value in ours.items() if name in _KEPT}
    root = str(Path(__file__).resolve().parents[2])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    # numpy's BLAS threads would only wait; ggml, when it aborts, would call gdb and take seconds.
    return {"OPENBLAS_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1", **kept}
