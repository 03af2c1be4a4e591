"""All that only a GPU can prove, in one command: `python -m tests.gpu_check`, or `make gpu-check`.

Correctness first: the kernels' tests compiled, and every architecture in every placement held against
float32 and llama.cpp. Then speeds against what this machine's memories allow, the overhead of a token,
planned against measured VRAM, and the shape of DeepSeek-V3 with as many layers as fit. The last line is
JSON with every figure; `ok` is true where everything ran to its end, passed, and reached its bar (which
are in tests/gpu/verdict.py). Needs no network and at most eight minutes: a section whose time is up
is cut short, and `cut` names it.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.gpu import deepseek, fidelity, overhead, speeds, suite, vram
from tests.gpu.verdict import Figures, Section, deadlines, verdict

NO_GPU = """gpu-check needs a CUDA device, and torch {version} sees none.\
 Run it on a machine with an NVIDIA GPU, its driver and a CUDA build of torch."""

CORRECTNESS = (Section("tests", 0, suite.run), Section("fidelity", 0, fidelity.run))
"""Run beside each other: compiling takes most of their time. Everything after them has its seconds."""
SECTIONS = (
    Section("speed", 60, speeds.run),
    Section("overhead", 30, overhead.run),
    Section("vram", 60, vram.run),
    Section("deepseek", 60, deepseek.run),
)


def main() -> int:
    """0 where everything passed, else 1."""
    import torch

    if not torch.cuda.is_available():
        sys.stderr.write(NO_GPU.format(version=torch.__version__) + "\n")
        return 1
    begin = time.monotonic()
    figures: Figures = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    figures = verdict(figures | check(begin)) | {"seconds": round(time.monotonic() - begin, 1)}
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["ok"] else 1


def check(begin: float) -> Figures:
    """The figures of all sections by their names."""
    first = Section("correctness", 0, lambda deadline: {})
    ends = deadlines((first, *SECTIONS), begin)
    with ThreadPoolExecutor(len(CORRECTNESS)) as pool:
        parts = list(pool.map(lambda section: run(section, ends[0]), CORRECTNESS))
    parts += [run(section, end) for section, end in zip(SECTIONS, ends[1:], strict=True)]
    names = [section.name for section in (*CORRECTNESS, *SECTIONS)]
    return dict(zip(names, parts, strict=True))


def run(section: Section, deadline: float) -> Figures:
    """A section's figures; one that fails says so, and those after it go on."""
    begin = time.monotonic()
    say(f"{section.name} begins, {deadline - begin:.0f} s at most")
    try:
        figures = section.run(deadline)
    except Exception as error:  # the boundary: what the others found out is said all the same
        figures = {"failed": [f"{type(error).__name__}: {error}"]}
    figures["seconds"] = round(time.monotonic() - begin, 1)
    ended = (
        "was cut short" if figures.get("cut") else "failed" if figures.get("failed") else "ended"
    )
    say(f"{section.name} {ended} after {figures['seconds']:.0f} s")
    return figures


def say(line: str) -> None:
    """Progress, for the person who waits."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
