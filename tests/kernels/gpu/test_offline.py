"""Kernels compiled without a GPU: a sample here, all of them and both versions of Triton by `make check-gpu`.

Triton's interpreter accepts much that its compiler rejects.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.kernels.gpu.gpu_cases import ON_GPU
from tests.kernels.gpu.offline import (
    lanes,
    launched,
    op_cases,
    product_cases,
    report,
    units,
    versions,
)

without_gpu = pytest.mark.skipif(ON_GPU, reason="the driver of a real GPU is in use")
WORKER = ("-m", "tests.kernels.gpu.offline.worker")
ENVIRONMENT = versions.environment(versions.INSTALLED)


SAMPLE = {
    "Q4_K: one row @ 80,86,89,90": {"gemv", "_quantise"},
    "decode, 8 x 128 @ 80,86,89,90": {"_attention", "_merge"},
}
MORE = {"IQ2_XS: 16 rows": {"gemm"}, "latent decode, 16": {"_latent_attention", "_merge"}}


@without_gpu
@pytest.mark.parametrize("cases", [SAMPLE, pytest.param(MORE, marks=pytest.mark.exhaustive)])
def test_a_sample_compiles_and_reaches_its_bars(cases: dict[str, set[str]]) -> None:
    results = list(lanes.results(cases, WORKER, ENVIRONMENT, 1))
    assert [result["unit"] for result in results] == list(cases)
    for unit, result in zip(cases, results, strict=True):
        assert "rows" in result, result
        assert {row["kernel"] for row in result["rows"]} == cases[unit]
        assert {row["arch"] for row in result["rows"]} == set(units.split(unit)[1])
        for row in result["rows"]:
            assert list(report.broken(row | {"case": unit})) == []


def ask(expression: str) -> Any:
    """A value from a process in which kernels are compiled, not interpreted."""
    code = f"import json; from tests.kernels.gpu.offline import units, op_cases; print(json.dumps({expression}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=versions.ROOT, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@without_gpu
def test_every_kernel_that_is_launched_has_a_case_and_recurrent_ones_compile_once() -> None:
    cases = [*op_cases.CASES, *(f"Q4_K: {case}" for case in product_cases.cases("Q4_K"))]
    found = ask(f"{{case: sorted(units.specialisations(case)) for case in {cases!r}}}")
    names = {name.rpartition(".")[2] for keys in found.values() for name, _ in keys}
    assert launched.launched() <= names
    token, few, two, nine, prompt = (
        {tuple(key) for key in found[f"recurrent, {case}"]}
        for case in ("a token", "a few tokens", "two tokens", "nine tokens", "a prompt")
    )
    assert two == few and nine == prompt and len(token & few) == 1


def test_kernels_are_missed_where_no_case_launches_them() -> None:
    assert {"gemm", "_attention"} <= launched.launched()
    assert "gemm" in launched.absent([{"kernel": "_attention"}])


def test_bars_are_those_of_the_target() -> None:
    row = {"case": "one row", "arch": 89, "shared": 100 << 10, "stack": 0, "loop_barriers": 2}
    assert len(list(report.broken(row))) == 2
    assert len(list(report.broken(row | {"arch": 90}))) == 1
    assert list(report.broken({"case": "pack", "arch": 120, "shared": 0, "stack": 65}))


# ---- the processes that compile ----------------------------------------------------------------------

FAKE = """
import json, os, sys, time
for line in sys.stdin:
    unit = line.strip()
    if unit == "crashes": os._exit(7)
    if unit == "hangs": time.sleep(600)
    print(json.dumps({"unit": unit, "pid": os.getpid()}), flush=True)
"""


def test_a_unit_that_crashes_or_hangs_costs_no_other() -> None:
    asked = ["one", "crashes", "two", "hangs", "three"]
    command, env = ("-c", FAKE), ENVIRONMENT
    found = {result["unit"]: result for result in lanes.results(asked, command, env, 1, seconds=3)}
    assert list(found) == asked
    assert found["crashes"]["error"].endswith("ended with 7")
    assert found["hangs"]["error"].endswith("stopped after 3 s")
    assert len({found[unit]["pid"] for unit in ("one", "two", "three")}) == 3


def test_units_are_shared_out_among_processes() -> None:
    found = list(lanes.results(map(str, range(6)), ("-c", FAKE), ENVIRONMENT, 2))
    assert sorted(result["unit"] for result in found) == list("012345")
