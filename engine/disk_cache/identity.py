"""What a model's KV on the disk belongs to: its files, and whatever computes with them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from engine.downloads.integrity import is_unchanged, record_of

_SAMPLES, _SAMPLE = 64, 4096
"""Places of a file that are read, and bytes at each: a file replaced by another of its size and time is told."""

_SOURCES = ("engine/model", "engine/spec", "kernels")


def model_key(parts: Sequence[Path], layout: Sequence[Any]) -> bytes:
    """32 bytes that change with the model's files, `layout`, the kernels and the code above them.

    `parts` are the files of the model; `layout` says how its memory is laid out, in values that JSON has. Raises
    `OSError` for a file that cannot be read.
    """
    said = [[_file(part) for part in parts], list(layout), code_version()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


def _file(path: Path) -> list[Any]:
    """A file's checksum where one is known and it has not changed since, its size, its time, and samples."""
    status = path.stat()
    record = record_of(path)
    known = record.checksum if record is not None and is_unchanged(path, record) else ""
    return [known, status.st_size, status.st_mtime_ns, _samples(path, status.st_size)]


def _samples(path: Path, size: int) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(number * max(0, size - _SAMPLE) // (_SAMPLES - 1))
            checksum.update(file.read(_SAMPLE))
    return checksum.hexdigest()


@cache
def code_version() -> str:
    """A hash of what computes: sources, the native library, and the libraries below them."""
    from kernels.cpu.native import choose_isa, load

    root = Path(__file__).resolve().parents[2]
    sources = sorted(path for folder in _SOURCES for path in (root / folder).rglob("*.py"))
    checksum = hashlib.sha256(choose_isa().encode())
    for path in (*sources, Path(load()._name)):
        checksum.update(path.name.encode() + path.read_bytes())
    for package in ("llama-cpp-python", "torch", "triton", "flashinfer-python"):
        checksum.update(f"{package} {_version(package)}".encode())
    checksum.update(os.uname().machine.encode())
    return checksum.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
