"""A file of the kernels' tests, compiled: `python -m tests.gpu.suite FILE` tells its counts."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.gpu.children import tell

NEEDED = "KTCHAT_GPU_TESTS"
"""In the reason of a test that is skipped because there is no GPU: here there is one."""
NO_TESTS = 5
"""pytest's code where every test was left out."""


def main(file: str) -> int:
    """1 where a test failed, or was skipped for want of a GPU."""
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        code = int(pytest.main([file, "-q", "-m", "not slow", f"--junitxml={report}"]))
        found = {"code": code, **(counts(report) if report.exists() else {})}
    tell(found | {"passed": passed(found)})
    return 0 if passed(found) else 1


def counts(report: Path) -> dict[str, Any]:
    """What a report of pytest says: its tests, how many were skipped, and how many of those for want of a GPU."""
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    reasons = [skipped.get("message", "") for skipped in suite.iter("skipped")]
    return {
        **{name: int(suite.attrib[name]) for name in names},
        "without_gpu": sum(NEEDED in reason for reason in reasons),
        "reasons": sorted(set(reasons)),
        "seconds": float(suite.attrib["time"]),
    }


def passed(result: dict[str, Any]) -> bool:
    """Whether nothing failed and nothing was skipped for want of a GPU. A file may be for other places only."""
    if result["code"] == NO_TESTS:
        return True
    return result["code"] == 0 and result.get("without_gpu") == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
