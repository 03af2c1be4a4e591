"""The environment variables that a child process gets."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

_KEPT = (
    *(
        "PATH",
        "HOME",
        "CC",
        "CXX",
        "USER",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "VIRTUAL_ENV",
    ),
    *("LC_", "XDG_", "PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "GGML_", "LLAMA_", "CUDA_"),
    *("NVIDIA_", "TORCH_", "PYTORCH_", "TRITON_", "MALLOC_", "ASAN_", "COVERAGE_", "KTCHAT_"),
)
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: what native code and Python need, and no secrets.

    The folder of this package is put on Python's path where it is not there by itself (a checkout).
    """
    kept = {
        name: value
        for name, value in ours.items()
        if name.startswith(_KEPT) and not any(word in name.upper() for word in _SECRET)
    }
    root = str(Path(__file__).resolve().parents[2])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    # numpy's BLAS threads would only wait; ggml, when it aborts, would call gdb and take seconds.
    return {"OPENBLAS_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1", **kept}
