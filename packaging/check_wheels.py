"""Gathers the wheels that the GPU check carries to a machine without a network, venv or pip.

`python packaging/check_wheels.py [--python 3.12] [--out DIR] [--llama this-cpu|portable]`, run in a checkout on a
machine with a network. `python3 -m tests.gpu_check` unpacks them there. The tree is carried too, so that ours is
not among them; the application's own packages (textual, httpx2) and flashinfer are not needed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import wheelhouse
from wheel_files import Wheel, describe, trim

OUT = wheelhouse.ROOT / "build" / "wheelhouse-check"
"""Where the check looks."""
CARRIED = (
    *(
        "gguf",
        "diskcache",
        "jinja2",
        "markupsafe",
        "pyyaml",
        "tqdm",
        "nvidia-ml-py",
        "platformdirs",
    ),
    *("pytest", "pluggy", "iniconfig", "packaging", "pygments"),
)
"""What the check's processes import beside llama.cpp, torch and Triton."""
THERE = {
    "numpy": "torch's machine has it",
    "typing-extensions": "torch needs it",
    "requests": "only gguf's downloads",
}
"""What the wheels ask for and is not carried, with the reason."""


def gather(python: str, out: Path, llama: str) -> list[Wheel]:
    """Fill `out`. Raises `WheelhouseError`, also where the tree and the wheels are too large together."""
    if out.is_dir() and any(path.suffix != ".whl" for path in out.iterdir()):
        raise wheelhouse.WheelhouseError(f"{out} holds other files. Name another folder with --out.")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs = wheelhouse._llama_wheel(llama)
        trim(theirs, wheelhouse.LLAMA_KEPT, folder)
        wheelhouse._download(python, folder, ["--no-deps", *CARRIED])
        wheelhouse.left_out(folder, python, THERE)
        found = [describe(path) for path in sorted(folder.glob("*.whl"))]
        wheelhouse.check_size(found, wheelhouse.LIMIT_BYTES - tree_bytes())
        wheelhouse._replace(out, folder)
    return found


def tree_bytes() -> int:
    """Bytes of all files that git keeps or would keep."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=wheelhouse.ROOT, capture_output=True, check=True, text=True)
    paths = (wheelhouse.ROOT / name for name in done.stdout.split("\0") if name)
    return sum(path.lstat().st_size for path in paths if path.is_symlink() or path.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="3.12", help="that of the machine with the GPU")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--llama", choices=sorted(wheelhouse._LLAMA_BUILDS), default="portable")
    options = parser.parse_args(arguments)
    try:
        found = gather(options.python, options.out.resolve(), options.llama)
    except (wheelhouse.WheelhouseError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    for wheel in found:
        print(f"{wheel.bytes / 1e6:7.2f} MB  {wheel.name} {wheel.version}")
    total, tree = sum(wheel.bytes for wheel in found), tree_bytes()
    print(f"{total / 1e6:7.2f} MB of wheels, {tree / 1e6:.2f} MB of tree; 60 allowed together")
    print(f"\nCarry the tree and {options.out}, and run there:\npython3 -m tests.gpu_check")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
