"""What the GPU check's processes and their parent say to each other; imports nothing that a machine may lack.

A child prints a line of JSON, {"case": {...}}, for each thing it has found out; whatever else it prints is not
looked at.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SIMULATED = "KTCHAT_GPU_CHECK"
"""Set to "simulated", children open `tests.support.simulated_device` in place of a GPU."""

Case = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """Of children: kernels are compiled, and torch does not compete with our threads."""
    own = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return own | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | more


def module(name: str, *arguments: object) -> tuple[str, ...]:
    """The command of a module's `main`."""
    return (sys.executable, "-m", name, *map(str, arguments))


def tell(case: Case) -> None:
    """In a child: one thing was found out. On a line of its own, whatever was printed before."""
    sys.stdout.write("\n" + json.dumps({"case": case}) + "\n")
    sys.stdout.flush()


def told(line: str) -> Case | None:
    """The case that a line of a child tells, if it does."""
    if not line.startswith('{"case"'):
        return None
    try:
        found: Case = json.loads(line)["case"]
    except ValueError:
        return None  # it was stopped in the middle of a line
    return found
