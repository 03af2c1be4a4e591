"""The CPU kernels under sanitisers: `python -m tests.kernels.sanitize_cpu`.

The thread pool alone under TSan, then the kernels' tests under ASan and UBSan. About three minutes, so it is not
part of the default run. Numpy's arrays come from the sanitised malloc: a read past the end of a tensor is found.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kernels.cpu.build import build

_RUNTIMES = ("libasan.so", "libubsan.so", "libstdc++.so")
# A forked child of a sanitised process and its CPU time say nothing about ours.
_LEFT_OUT = "not fork and not idle"
_SIDE_BY_SIDE = ("-n", "2", "--dist", "loadgroup", "-m", "not exhaustive")


_COMPILER = os.environ.get("CXX", "g++")
_SOURCE = Path(__file__).parents[2] / "kernels" / "cpu" / "src"


def check_pool_for_races() -> None:
    """Many short runs of the pool under TSan. Raises `CalledProcessError` on a race."""
    flags = ["-std=gnu++17", "-O2", "-g", "-fsanitize=thread", "-pthread", f"-I{_SOURCE}"]
    sources = [str(Path(__file__).with_name("pool_race.cpp")), str(_SOURCE / "pool.cpp")]
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/pool_race"
        subprocess.run([_COMPILER, *flags, *sources, "-o", program], check=True)
        subprocess.run([program], check=True)


def main() -> int:
    """The pool's races, then pytest with the sanitisers' runtimes preloaded."""
    check_pool_for_races()
    preload = [
        subprocess.check_output([_COMPILER, f"-print-file-name={name}"], text=True).strip()
        for name in _RUNTIMES
    ]
    environment = {
        **os.environ,
        "KTCHAT_CPU_LIB": str(build(sanitize=True)),
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory until it ends
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/kernels",
        "-k",
        _LEFT_OUT,
        "-x",
        *_SIDE_BY_SIDE,
    ]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
