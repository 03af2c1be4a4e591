"""Versions of Triton beside the project's: each in a folder of its own, which comes first on the path.

Nothing else of a version's wheel is needed to compile: torch is the project's, and the tools of CUDA are in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[4]
CACHE = ROOT / "build" / "gpu-offline"
INSTALLED = version("triton")
VERSIONS = ("3.6.0", "3.7.1")
"""That of torch 2.11, which machines with a GPU have, and the pinned one."""


def environment(wanted: str) -> dict[str, str]:
    """Of a process that compiles with a version of Triton, which is fetched the first time."""
    own = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "PYTHONPATH")}
    own["OMP_NUM_THREADS"] = "1"
    return own if wanted == INSTALLED else own | {"PYTHONPATH": str(_folder(wanted))}


def _folder(wanted: str) -> Path:
    folder = CACHE / f"triton-{wanted}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--only-binary=:all:", "--target", name, f"triton=={wanted}"]
        subprocess.run(pip, check=True)
        shutil.move(name, folder)
        Path(name).mkdir()  # for the context to remove
    return folder
