"""All that only a GPU can prove, in one command: `python3 -m tests.gpu_check [STAGE ...]`, or `make gpu-check`.

Needs no network, no venv and no pip: torch and triton are the machine's, and what else is missing there is
carried as wheels (`packaging/wheelhouse.py --check`), which are unpacked and put on the path. Stages and their
order are in tests/gpu/contact.py. Every result is a line of $OUT/results.jsonl as soon as it is known; the
last line here is JSON with the verdict, `ok` where everything ran, passed and reached its bar. `--verdict FILE`
says it of a journal that a stopped run left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.gpu import contact
from tests.gpu.children import ROOT, SIMULATED, environment
from tests.gpu.stages import Journal, Stage, read, run
from tests.gpu.verdict import verdict

LIMIT = 570.0
"""Seconds for everything."""
WHEELS = ROOT / "build" / "wheelhouse-check"
NO_GPU = """gpu-check needs a CUDA device, and torch sees none. Run it on a machine with an NVIDIA GPU, its driver and a CUDA build of torch."""
_ASK = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where everything passed, else 1."""
    options = _options(arguments)
    stages = [s for s in contact.stages() if _asked(s, options.stages)]
    names = [stage.name for stage in stages]
    results = options.out / "results.jsonl"
    if options.verdict is not None:
        return _conclude(options.verdict, names)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        _put_on_path(sorted(options.wheels.glob("*.whl")), Path(folder, "wheels"))
        os.environ.setdefault("TRITON_CACHE_DIR", str(Path(folder, "triton")))
        if not _has_gpu():
            sys.stderr.write(NO_GPU + "\n")
            return 1
        journal = Journal(results, say)
        run(stages, journal, time.monotonic() + options.seconds)
        journal.close()
    return _conclude(results, names)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [stage.name for stage in contact.stages()]
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=LIMIT)
    parser.add_argument("--wheels", type=Path, default=WHEELS)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ROOT / "build" / "gpu-check")))  # fmt: skip
    parser.add_argument("--verdict", type=Path, metavar="FILE", help="of a journal that is there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.stages if name not in names]
    if unknown:
        parser.error(f"no stage {unknown[0]}: {', '.join(names)}")
    return options


def _asked(stage: Stage, names: Sequence[str]) -> bool:
    return stage.name in names if names else stage.name not in contact.OPTIONAL


def _put_on_path(wheels: Iterable[Path], folder: Path) -> None:
    """Unpack wheels for the processes that are started: a wheel is a zip of what pip would copy."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    if folder.is_dir():
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))


def _has_gpu() -> bool:
    """False only where torch says so: what crashes here is a result of the first stage."""
    if os.environ.get(SIMULATED) == "simulated":
        return True
    try:
        return subprocess.run([sys.executable, "-c", _ASK], env=environment(), timeout=60).returncode != 3  # fmt: skip
    except subprocess.TimeoutExpired:
        return True


def _conclude(results: Path, stages: Sequence[str]) -> int:
    """The verdict of what is in the journal, as the last line."""
    figures = verdict(read(results), stages)
    for how in ("failed", "stopped", "skipped"):
        for words in figures[how]:
            say(f"{how}: {words}")
    say(json.dumps({**figures, "results": str(results)}))
    return 0 if figures["ok"] else 1


def say(line: str) -> None:
    """Progress, for the person who waits."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
