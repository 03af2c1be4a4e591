"""The kernels' tests, compiled: every file in a process of its own, because compiling takes most of the time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.gpu.children import KEPT, ROOT, environment
from tests.gpu.verdict import Figures

SUITE = ROOT / "tests" / "kernels" / "gpu"
NEEDED = "KTCHAT_GPU_TESTS"
"""In the reason of a test that is skipped because there is no GPU: here there is one."""


def run(deadline: float) -> Figures:
    """Counts of every file, and whether all of them `passed`."""
    files = sorted(SUITE.glob("test_*.py"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            path.stem: pool.submit(_test, path, Path(folder, f"{path.stem}.xml"), deadline)
            for path in files
        }
        results: dict[str, dict[str, Any]] = {}
        for name, job in jobs.items():
            results[name] = job.result()
            sys.stdout.write(f"{name}: {words(results[name])}\n")
            sys.stdout.flush()
    figures: Figures = {"files": results, "passed": all(map(passed, results.values()))}
    figures["cut"] = any(result.get("timed_out", False) for result in results.values())
    return figures


def _test(path: Path, report: Path, deadline: float) -> dict[str, Any]:
    """Counts of one file's tests; a failing one's last lines go to stderr."""
    command = [sys.executable, "-m", "pytest", str(path), "-m", "not slow", f"--junitxml={report}"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(KTCHAT_GPU_TESTS="1"),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return {"code": None, "timed_out": True}
    if done.returncode not in (0, 5):
        sys.stderr.write(done.stdout[-KEPT:] + "\n")
    return {"code": done.returncode, **(counts(report) if report.exists() else {})}


def counts(report: Path) -> dict[str, Any]:
    """What a report of pytest says: its tests, and how many were skipped for want of a GPU."""
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    reasons = [skipped.get("message", "") for skipped in suite.iter("skipped")]
    return {
        **{name: int(suite.attrib[name]) for name in names},
        "without_gpu": sum(NEEDED in reason for reason in reasons),
        "seconds": float(suite.attrib["time"]),
    }


def passed(result: dict[str, Any]) -> bool:
    """Whether a file's tests passed, on the GPU. Code 5 of pytest: all of them are slow ones, left out."""
    ran = int(result.get("tests", 0)) > int(result.get("skipped", 0))
    on_gpu = result.get("without_gpu") == 0
    return result["code"] == 5 or (result["code"] == 0 and ran and on_gpu)


def words(result: dict[str, Any]) -> str:
    """A file's result in a few words."""
    if result.get("timed_out"):
        return "stopped, time was up"
    if "tests" not in result:
        return f"pytest ended with {result['code']}"
    bad = result["failures"] + result["errors"]
    return f"{result['tests']} tests, {bad} failed, {result['skipped']} skipped"
