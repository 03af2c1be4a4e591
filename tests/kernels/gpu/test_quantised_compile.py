"""The compiler takes the products for the oldest and the newest GPUs, and they fit a consumer's.

Triton's interpreter accepts much that its compiler rejects; compiling needs no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SHARED = 99 * 1024
"""Bytes of shared memory that one program may take on GPUs of compute capability 8.6, 8.9 and 12."""


@pytest.mark.parametrize(("name", "arch"), [("Q4_K", "80"), ("IQ2_XS", "120")])
def test_compiles(name: str, arch: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.gpu.compile_quantised", name, arch]
    cases = ["expert gemv", "gemm, 1024", "gathered", "swiglu", "down", "pack"]
    cases += ["biased swiglu", "biased down"]
    done = subprocess.run([*command, *cases], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert {kernel["case"].split(" rows")[0] for kernel in kernels} == set(cases)
    for kernel in kernels:
        assert kernel["shared"] <= SHARED and kernel["STACK"] == 0
        if kernel["case"] in ("expert gemv", "swiglu", "down"):
            assert kernel["barriers"] == 1, "a loop of a vector product waits for nothing"
