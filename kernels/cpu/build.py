"""Compiles the native library: `python -m kernels.cpu.build [--sanitize]`.

Each instruction set has compiler flags of its own. Objects are named by a hash of all that goes into them,
so a build without changes does nothing and a changed file compiles alone.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).parent / "src"
_OUTPUT = Path(__file__).parent / "lib"

_FLAGS = [
    "-std=gnu++17",
    "-O3",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-pthread",
]
_AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]
# GCC 12's own AVX-512 header trips -Wuninitialized and -Wmaybe-uninitialized (its bug 105593).
_AVX512 = [*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))]
_AVX512 += ["-mprefer-vector-width=512", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
_ISA_FLAGS = {
    "isa_avx512vnni": [*_AVX512, "-mavx512vnni"],
    "isa_avx512": _AVX512,
    "isa_avxvnni": [*_AVX2, "-mavxvnni"],
    "isa_avx2": _AVX2,
}
_PLAIN = {"isa_plain": ["-O1"]}
"""For processors that nobody has any more: a sixth of the time to compile."""
_RECENT = "-mavxvnni"  # GCC 11 and later; without it the library lacks these kernels
_SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


class BuildError(RuntimeError):
    """The native library cannot be built: no compiler, or it reported errors."""


def library_path(sanitize: bool = False) -> Path:
    """Where the built library lies."""
    return _OUTPUT / ("libktchat_cpu_asan.so" if sanitize else "libktchat_cpu.so")


def build(sanitize: bool = False) -> Path:
    """The library, built if its sources changed. Raises `BuildError`.

    An installed package without a compiler keeps the library that it came with.
    """
    library = library_path(sanitize)
    compiler = os.environ.get("CXX", "g++")
    flags = _FLAGS + (_SANITIZE if sanitize else [])
    stamp = library.with_suffix(".stamp")
    digest = _digest(sorted(_SOURCE.iterdir()), [compiler, *flags, str(_ISA_FLAGS | _PLAIN)])
    if library.exists() and stamp.exists() and stamp.read_text() == digest:
        return library
    if shutil.which(compiler) is None:
        raise BuildError(
            f"The native library must be compiled and there is no {compiler}."
            " Install a C++17 compiler (on Debian: apt install g++)."
        )
    with _lock():
        if not (stamp.exists() and stamp.read_text() == digest):
            _compile(compiler, flags, library)
            stamp.write_text(digest)
    return library


def _compile(compiler: str, flags: Sequence[str], library: Path) -> None:
    """Compile what changed, a file for each core at a time, and link into place in one step."""
    objects = _OUTPUT / "obj"
    objects.mkdir(exist_ok=True)
    headers = sorted(_SOURCE.glob("*.h"))
    unknown = () if _accepts(compiler, _RECENT) else (_RECENT,)
    commands: dict[Path, list[str]] = {}
    # Those that take longest first: no core shall wait for the last one.
    for source in sorted(
        _SOURCE.glob("*.cpp"), key=lambda path: (path.stem not in _ISA_FLAGS, path)
    ):
        own = [*flags, *((_ISA_FLAGS | _PLAIN).get(source.stem, []) if _is_x86() else [])]
        own = [flag for flag in own if flag not in unknown]
        digest = _digest([source, *headers], [compiler, *own])
        target = objects / f"{source.stem}-{digest[:16]}.o"
        commands[target] = [compiler, *own, "-c", str(source), "-o"]

    def compile_one(target: Path) -> None:
        if not target.exists():
            part = target.with_suffix(".part")
            _run([*commands[target], str(part)])
            part.rename(target)

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        list(pool.map(compile_one, commands))
    part = library.with_suffix(".part")
    _run([compiler, *flags, "-shared", *map(str, commands), "-o", str(part)])
    part.rename(library)
    for old in set(objects.glob("*.o")) - set(commands):
        if old.name.split("-")[0] in {target.name.split("-")[0] for target in commands}:
            _forget(old)


def _forget(old: Path) -> None:
    """Delete an object once nobody has used it for a day: the two kinds of build share the folder."""
    newest = max(path.stat().st_mtime for path in old.parent.iterdir())
    if old.stat().st_mtime < newest - 86400:
        old.unlink(missing_ok=True)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{result.stderr.strip()[-4000:]}")
    sys.stderr.write(result.stderr)


def _accepts(compiler: str, flag: str) -> bool:
    command = [compiler, flag, "-E", "-x", "c++", os.devnull, "-o", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _digest(files: Sequence[Path], words: Sequence[str]) -> str:
    sha = hashlib.sha256(repr(words).encode())
    for file in files:
        sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()


def _is_x86() -> bool:
    return platform.machine().lower() in {"x86_64", "amd64"}


@contextmanager
def _lock() -> Iterator[None]:
    """One build at a time, between processes."""
    _OUTPUT.mkdir(exist_ok=True)
    with (_OUTPUT / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.cpu.build", description=__doc__)
    parser.add_argument("--sanitize", action="store_true", help="with ASan and UBSan")
    options = parser.parse_args(arguments)
    try:
        build(options.sanitize)
    except BuildError as error:
        raise SystemExit(str(error)) from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
