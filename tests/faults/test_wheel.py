"""A built wheel holds all that the program needs, and runs from it without a checkout beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
SOURCES += ("ktchat", "engine", "kernels", "assets")


pytestmark = pytest.mark.xdist_group("wheel")  # which is built once


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of a wheel of this checkout, built from a copy of it and without a network."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        subprocess.run(["cp", "-rP", ROOT / name, copy / name], check=True)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", build, folder], cwd=copy, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = folder.glob("ktchat-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def ktchat(site: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program as it was unpacked, in a folder that is not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site), "KTCHAT_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "ktchat", *arguments],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_wheel_holds_every_asset_and_all_sources(unpacked: Path) -> None:
    for folder, pattern in (("assets", "*.json"), ("assets", "*.gguf"), ("assets/profiles", "*")):
        wanted = {path.name for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert wanted
        assert wanted <= {path.name for path in (unpacked / "ktchat" / folder).iterdir()}
    sources = {p.relative_to(ROOT) for p in (ROOT / "kernels" / "cpu" / "src").iterdir()}
    assert sources <= {p.relative_to(unpacked) for p in unpacked.rglob("kernels/cpu/src/*")}
    assert not list(unpacked.rglob("*asan*"))
    assert (unpacked / "kernels" / "cpu" / "lib" / "libktchat_cpu.so").is_file()
    assert (unpacked / "ktchat" / "ktchat.tcss").is_file()


def test_a_wheel_knows_its_guide_its_catalogue_and_its_profiles(
    unpacked: Path, tmp_path: Path
) -> None:
    listed = ktchat(unpacked, tmp_path, "models", "list")
    assert str(unpacked / "ktchat" / "assets" / "ktchat-guide.gguf") in listed.stdout, listed.stderr
    planned = ktchat(unpacked, tmp_path, "plan", "qwen3-30b-a3b-instruct", "--profile", "4090-64gb")
    assert planned.returncode == 0, planned.stderr
    assert "runs on the GPU" in planned.stdout
