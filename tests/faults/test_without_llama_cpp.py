"""The program where llama.cpp is not installed: what our engine runs it runs, and what needs llama.cpp says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import ROOT, Program, one_clear_line
from tests.support.foreign import internlm2
from tests.support.tiny import tiny_model

Run = Callable[..., subprocess.CompletedProcess[str]]
GUIDE = ROOT / "assets" / "ktchat-guide.gguf"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with all the packages of this one but llama.cpp's."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / Path(sysconfig.get_path("purelib")).parent.name / "site-packages"
    for entry in sys.path:
        if entry.endswith("site-packages"):
            for found in Path(entry).iterdir():
                link = packages / found.name
                if not found.name.startswith("llama_cpp") and not link.exists():
                    link.symlink_to(found)
    return folder / "bin" / "python"


@pytest.fixture
def run(python: Path, tmp_path: Path) -> Run:
    program = Program(tmp_path)

    def run(*arguments: str, by: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [by or str(python), "-m", "ktchat", *arguments],
            env=program.environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=os.fspath(tmp_path),
        )

    return run


def test_it_is_not_there(python: Path) -> None:
    done = subprocess.run([str(python), "-c", "import numpy, llama_cpp"], capture_output=True)
    assert b"No module named 'llama_cpp'" in done.stderr


def test_the_guide_answers(run: Run) -> None:
    done = run("run", "-m", str(GUIDE), "What is an expert?")
    assert done.returncode == 0 and "expert" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("architecture", "experts", "matrices"),
    [("qwen3moe", "Q4_K", "Q8_0"), ("deepseek2", "IQ4_XS", "Q4_0")],
)
def test_models_of_our_engine_say_what_they_say_elsewhere(
    run: Run, architecture: str, experts: str, matrices: str, models: Path
) -> None:
    path = tiny_model(architecture, models, expert_type=experts, matrix_type=matrices)
    words = (
        "run",
        "-m",
        str(path),
        "--temperature",
        "0",
        "--max-tokens",
        "6",
        "--json",
        "hi there",
    )
    here, elsewhere = run(*words), run(*words, by=sys.executable)
    assert here.returncode == elsewhere.returncode == 0
    events = [[json.loads(line) for line in done.stdout.splitlines()] for done in (here, elsewhere)]
    texts = ["".join(event.get("text", "") for event in all_) for all_ in events]
    assert texts[0] and texts[0] == texts[1]
    assert run("models", "info", str(path)).returncode == 0
    assert run("plan", str(path)).returncode == 0
    few = ("--prompt", "16", "--gen", "4", "--rounds", "1", "--threads", "1")
    assert run("bench", "-m", str(path), *few).returncode == 0


def test_what_needs_it_says_so(run: Run, models: Path) -> None:
    path = str(tiny_model("qwen3moe", models))
    other = str(internlm2(models))
    for words in (
        ["run", "-m", other, "hi"],
        ["verify", "-m", path],
        ["bench", "-m", path, "--vs", "llama.cpp"],
    ):
        done = run(*words)
        assert done.returncode == 1 and one_clear_line(done.stderr.splitlines()[-1]), done.stderr
        assert "needs llama.cpp" in done.stderr and "pip install llama-cpp-python" in done.stderr
    assert "llama.cpp is not installed" in run("doctor").stdout
