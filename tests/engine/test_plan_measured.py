"""The plan's bytes against what a process really takes, on the CPU, for six shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.evaluation.synthetic import shape_file
from engine.machine.probe import available_memory

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.03

CASES = [
    ("qwen3-30b-a3b", 2, "Q4_K_M", 32768),
    ("deepseek-v2-lite", 3, "Q4_K_M", 32768),
    pytest.param("deepseek-v3", 2, "Q4_K_M", 32768, marks=pytest.mark.exhaustive),
    ("qwen3-4b", 6, "Q8_0", 16384),
    ("qwen3.6-35b-a3b", 4, "Q4_K_M", 32768),
    pytest.param("gpt-oss-20b", 4, "MXFP4", 32768, marks=pytest.mark.exhaustive),
]
"""Shape, layers of it (the last computes one row only), types, tokens of context."""


@pytest.mark.slow
@pytest.mark.xdist_group("memory")
@pytest.mark.parametrize(("name", "layers", "recipe", "context"), CASES)
def test_planned_memory_is_what_the_process_takes(
    name: str, layers: int, recipe: str, context: int, tmp_path: Path
) -> None:
    if available_memory() < 4 << 30:
        pytest.skip("less than 4 GiB of memory are free")
    path = shape_file(name, layers, tmp_path, recipe=recipe)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.resident", str(path), str(context)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    error = result["planned"] / result["measured"] - 1
    sys.stdout.write(f"{name}: {result['measured'] / 1e6:.0f} MB, {error:+.2%} planned\n")
    assert abs(error) <= TOLERANCE, result
