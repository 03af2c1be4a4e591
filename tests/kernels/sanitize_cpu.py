"""The CPU kernels' tests under ASan and UBSan: `python -m tests.kernels.sanitize_cpu`.

About a minute, so it is not part of the default run. Numpy's arrays come from the sanitised malloc:
a read past the end of a tensor is found.
"""

from __future__ import annotations

import os
import subprocess
import sys

from kernels.cpu.build import build

_RUNTIMES = ("libasan.so", "libubsan.so", "libstdc++.so")
# A forked child of a sanitised process and its CPU time say nothing about ours.
_LEFT_OUT = "not fork and not idle"


def main() -> int:
    """Build, then run pytest with the sanitisers' runtimes preloaded."""
    compiler = os.environ.get("CXX", "g++")
    preload = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in _RUNTIMES
    ]
    environment = {
        **os.environ,
        "KTCHAT_CPU_LIB": str(build(sanitize=True)),
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory until it ends
    }
    command = [sys.executable, "-m", "pytest", "tests/kernels", "-k", _LEFT_OUT, "-x"]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
