"""Gathers the wheels that a machine without a network needs to install and run ktchat.

`python packaging/wheelhouse.py --python 3.12 [--gpu] [--out DIR] [--llama this-cpu|portable]`, run in a
checkout on a machine with a network. Knows what to gather, what to leave out and why, and how small
it must be; the versions stand in constraints.txt. torch and triton are never gathered: they are
larger than all the rest together, and a machine with a GPU has them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wheel_files import Wheel, asked, describe, needs, requirements, trim

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "packaging" / "constraints.txt"
LIMIT_BYTES = 60_000_000
LLAMA = "llama-cpp-python"

# What our own wheel is built from; kernels/cpu/lib comes along so that unchanged sources are not
# compiled again.
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "ktchat", "engine", "kernels")

# flashinfer imports these, beside what ktchat needs itself; ninja runs the compiler for its kernels.
FLASHINFER = "flashinfer-python"
FLASHINFER_NEEDS = ("apache-tvm-ffi", "requests", "ninja")

LEFT_OUT = {
    "torch": "the machine has it",
    "triton": "comes with torch",
    "hf-xet": "only huggingface-hub's own downloads; ktchat has its own",
    "cuda-python": "only flashinfer's communication and CuTe kernels, which ktchat does not call",
    "cuda-tile": "only flashinfer's tile kernels, which ktchat does not call",
    "nccl4py": "only flashinfer's communication between several GPUs",
    "nvidia-cudnn-frontend": "only flashinfer's cuDNN kernels, which ktchat does not call",
    "nvidia-cutlass-dsl": "only flashinfer's CuTe kernels for Blackwell, which ktchat does not call",
    "einops": "only flashinfer's sparse attention",
    "tabulate": "only flashinfer's own command line",
}

# How llama.cpp is compiled. Its build for this processor is the fastest, and stops with an illegal
# instruction on another that lacks some of its instructions.
_LLAMA_BUILDS = {
    "portable": "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON",
    "this-cpu": "",
}
_LLAMA_WORDS = {
    "portable": "every x86-64 processor with AVX2",
    "this-cpu": "the processor of the machine that gathered this",
}

# llama-cpp-python's wheel has each library up to six times. ktchat opens these; .so.0 is the name
# by which they ask for one another. libmtmd (pictures) is never opened.
LLAMA_KEPT = re.compile(
    r"(?:llama_cpp/|llama_cpp_python)(?!.*\.so)|llama_cpp/lib/lib(?:llama\.so|ggml[^.]*\.so(?:\.0)?)$"
)


class WheelhouseError(RuntimeError):
    """The wheels cannot be gathered, or are too large."""


def platforms(glibc_minor: int = 34) -> list[str]:
    """The platform tags that x86-64 Linux with glibc 2.`glibc_minor` takes, newest first."""
    newest_first = [f"manylinux_2_{minor}_x86_64" for minor in range(glibc_minor, 4, -1)]
    return [*newest_first, "manylinux2014_x86_64", "manylinux2010_x86_64", "linux_x86_64"]


def gather(python: str, out: Path, gpu: bool, llama: str) -> dict[str, Any]:
    """Fill the folder `out` and return its manifest. Raises `WheelhouseError`."""
    _check_folder(out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own = _own_wheel(folder)
        theirs = trim(_llama_wheel(llama), LLAMA_KEPT, folder / "trimmed")
        wheels = folder / "wheels"
        _download(python, wheels, [str(own), str(theirs), *(FLASHINFER_NEEDS if gpu else ())])
        if gpu:
            _download(python, wheels, ["--no-deps", FLASHINFER])
        for unwanted in wheels.glob("hf_xet-*.whl"):
            unwanted.unlink()
        found = [describe(path) for path in sorted(wheels.glob("*.whl"))]
        check_size(found)
        absent = left_out(wheels, python)
        symbols = needs(wheels.glob("*-linux_x86_64.whl"))
        manifest = _manifest(python, gpu, llama, found, symbols, absent)
        _replace(out, wheels)
    (out / "requirements.txt").write_text(requirements(found), encoding="utf-8")
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def install_command(python: str, out: Path) -> str:
    """Installs exactly what was gathered, each file checked against its hash.

    Without dependencies: flashinfer's metadata asks for what is left out.
    """
    return (
        f"python{python} -m pip install --no-index --no-deps --find-links {out}"
        f" -r {out / 'requirements.txt'}"
    )


def check_size(wheels: Sequence[Wheel], limit: int | None = None) -> int:
    """The bytes of all. Raises `WheelhouseError` above the bound, with the largest named."""
    limit = LIMIT_BYTES if limit is None else limit
    total = sum(wheel.bytes for wheel in wheels)
    if total <= limit:
        return total
    largest = sorted(wheels, key=lambda wheel: -wheel.bytes)[:5]
    raise WheelhouseError(
        f"The wheels take {total / 1e6:.1f} MB and {limit / 1e6:.0f} MB is the bound. Largest:"
        f" {', '.join(f'{wheel.name} {wheel.bytes / 1e6:.1f}' for wheel in largest)}."
    )


def left_out(folder: Path, python: str, known: Mapping[str, str] = LEFT_OUT) -> dict[str, str]:
    """What the wheels in `folder` ask for and do not get, each with the reason.

    Raises `WheelhouseError` for one without a reason.
    """
    wheels = sorted(folder.glob("*.whl"))
    present = {describe(path).name for path in wheels}
    reasons: dict[str, str] = {}
    for path in wheels:
        for name in asked(path, python) - present:
            if name not in known:
                raise WheelhouseError(f"{path.name} asks for {name}, which was not gathered")
            reasons[name] = known[name]
    return dict(sorted(reasons.items()))


def _own_wheel(folder: Path) -> Path:
    """Built from a copy, so that nothing stale in build/ gets in."""
    source = folder / "source"
    source.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*asan*")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skip)  # ktchat/assets is a link
        else:
            shutil.copy2(ROOT / name, source / name)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder / "own"), str(source))
    (wheel,) = (folder / "own").glob("ktchat-*.whl")
    return wheel


def _llama_wheel(kind: str) -> Path:
    """Built once and kept under build/; the one for this processor is what pip has cached."""
    arguments = _LLAMA_BUILDS[kind]
    version = pinned(LLAMA)
    folder = ROOT / "build" / f"llama-{version}-{kind}"
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        print(
            f"llama.cpp for {_LLAMA_WORDS[kind]}: compiled if pip has no wheel of it, in minutes",
            flush=True,
        )
        # pip's cache knows nothing of compiler flags: a portable build stays out of it.
        uncached = ["--no-cache-dir"] if arguments else []
        options = [*uncached, "--no-deps", "--wheel-dir", str(folder)]
        _pip("wheel", *options, f"{LLAMA}=={version}", environment={"CMAKE_ARGS": arguments})
        wheels = list(folder.glob("*.whl"))
    (wheel,) = wheels
    return wheel


def pinned(package: str) -> str:
    """The version in constraints.txt. Raises `WheelhouseError`."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        if name.replace("_", "-").lower() == package:
            return version.strip()
    raise WheelhouseError(f"{CONSTRAINTS} has no version of {package}")


def _download(python: str, folder: Path, wanted: Sequence[str]) -> None:
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    target += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    for platform in platforms():
        target += ["--platform", platform]
    _pip("download", "--dest", str(folder), *target, *wanted)


def _pip(command: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    constrained = ["--constraint", str(CONSTRAINTS)]
    line = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]
    run = subprocess.run(
        [*line, *constrained, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        raise WheelhouseError(f"pip {command} failed:\n{run.stdout.strip()[-3000:]}")


def _manifest(
    python: str,
    gpu: bool,
    llama: str,
    wheels: Sequence[Wheel],
    symbols: dict[str, str],
    absent: dict[str, str],
) -> dict[str, Any]:
    return {
        "python": python,
        "platform": "linux x86_64",
        "gpu": gpu,
        "llama_cpp_runs_on": _LLAMA_WORDS[llama],
        "needs": symbols,
        "left_out": absent,
        "bytes": check_size(wheels),
        "wheels": [vars(wheel) for wheel in wheels],
    }


def _check_folder(out: Path) -> None:
    """Only an empty folder or an earlier wheelhouse is written to."""
    if out.exists() and not out.is_dir():
        raise WheelhouseError(f"{out} is not a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise WheelhouseError(f"{out} holds other files. Name an empty folder with --out.")


def _replace(out: Path, wheels: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    for new in wheels.glob("*.whl"):
        shutil.move(new, out / new.name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--python", default=running, help="the target's Python, such as 3.12")
    parser.add_argument("--out", type=Path, help="an empty folder, or an earlier wheelhouse")
    parser.add_argument("--gpu", action="store_true", help="with what a GPU needs beside torch")
    parser.add_argument(
        "--llama",
        choices=sorted(_LLAMA_BUILDS),
        default="portable",
        help="llama.cpp for any processor with AVX2 (compiled the first time, in minutes), or for"
        " processors like this one (pip's own build)",
    )
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"3\.1[1-9]", options.python):
        parser.error("--python: 3.11 or newer, such as 3.12")
    out = (options.out or ROOT / "build" / f"wheelhouse-{options.python}").resolve()
    try:
        manifest = gather(options.python, out, options.gpu, options.llama)
    except (WheelhouseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    _report(manifest)
    print(f"\nOn the machine without a network:\n{install_command(options.python, out)}")
    return 0


def _report(manifest: dict[str, Any]) -> None:
    wheels = sorted(manifest["wheels"], key=lambda wheel: -int(wheel["bytes"]))
    for wheel in wheels:
        print(f"{wheel['bytes'] / 1e6:7.2f} MB  {wheel['name']} {wheel['version']}")
    print(
        f"{manifest['bytes'] / 1e6:7.2f} MB  {len(wheels)} wheels; {LIMIT_BYTES / 1e6:.0f} allowed"
    )
    for name, why in manifest["left_out"].items():
        print(f"left out: {name} ({why})")
    symbols = ", ".join(f"{name} {version}" for name, version in manifest["needs"].items())
    print(f"needs x86-64 Linux with {symbols}; llama.cpp: {manifest['llama_cpp_runs_on']}")


if __name__ == "__main__":
    raise SystemExit(main())
