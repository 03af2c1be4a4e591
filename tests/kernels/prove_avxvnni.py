"""The AVX-VNNI kernels where the processor lacks it: `python -m tests.kernels.prove_avxvnni`.

Where it has them, the kernels' tests run them as they are, as they do every instruction set of the machine. Elsewhere
their source is compiled for AVX-512 VNNI with VL, whose 256-bit instruction computes the same, or where there is only
AVX2 for what the instruction stands for; then the kernels' tests run on them. About two minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from engine.machine.probes.cpu import cpu
from kernels.cpu.build import _AVX2, _FLAGS

_SOURCE = Path(__file__).parents[2] / "kernels" / "cpu" / "src"
_PROVED = {"isa_avxvnni", "isa_choice"}
_TESTS = ("products", "ik_types", "experts", "attention", "window", "recurrent")


def flags_of(source: Path, wide: bool) -> list[str]:
    """What a source is compiled with: only the proved kernels have an instruction set."""
    flags = [
        *_FLAGS,
        *([f"-DKTCHAT_PROVE_AVXVNNI={512 if wide else 2}"] * (source.stem in _PROVED)),
    ]
    if source.stem == "isa_avxvnni":
        flags += [*_AVX2, *(["-mavx512vnni", "-mavx512vl"] if wide else [])]
    return flags


def compile_one(folder: str, wide: bool, source: Path) -> str:
    target = f"{folder}/{source.stem}.o"
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, *flags_of(source, wide), "-c", str(source), "-o", target], check=True)
    return target


def main() -> int:
    """Compile, then pytest with that library. Returns pytest's status."""
    found, _ = cpu()
    wide = found.isa == "avx512" and found.vnni
    sys.stdout.write(f"Proved by {'AVX-512 VNNI and VL' if wide else 'AVX2'}.\n")
    with tempfile.TemporaryDirectory() as folder:
        with ThreadPoolExecutor(2) as pool:
            work = partial(compile_one, folder, wide)
            objects = list(pool.map(work, sorted(_SOURCE.glob("*.cpp"))))
        library = f"{folder}/library.so"
        command = [os.environ.get("CXX", "g++"), "-shared", "-pthread", *objects, "-o", library]
        subprocess.run(command, check=True)
        environment = {**os.environ, "KTCHAT_CPU_LIB": library, "KTCHAT_ISA": "avxvnni"}
        tests = [f"tests/kernels/test_cpu_{name}.py" for name in _TESTS]
        pytest = [sys.executable, "-m", "pytest", "-q", "-m", "not exhaustive", *tests]
        return subprocess.run(pytest, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
