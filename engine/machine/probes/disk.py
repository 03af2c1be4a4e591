"""The disk where models live: what is free, and how fast a model can be read from it."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import time
from pathlib import Path

from engine.common.folders import models_below

READ_SECONDS = 0.5
BLOCK = 8 << 20
SMALLEST = 64 << 20
"""Bytes a file must have to be read for the measurement."""


def free_space(folder: Path) -> tuple[int, list[str]]:
    """Bytes free where `folder` is or would be, and what could not be found out."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free, []
        except FileNotFoundError:
            continue
        except OSError as error:
            return 0, [f"The free space in {folder} is not known: {error.strerror}"]
    return 0, [f"The free space in {folder} is not known"]


def read_speed(folder: Path) -> tuple[float, list[str]]:
    """GB/s of sequential reading past the system's cache, from a model there; 0 with a note if none."""
    try:
        largest = max(
            ((path.stat().st_size, path) for path in models_below(folder)), default=(0, None)
        )
    except OSError as error:
        return 0.0, [f"The disk's speed is not measured: {error.strerror}"]
    size, path = largest
    if path is None or size < SMALLEST:
        return 0.0, ["The disk's speed is not measured: there is no model on it yet"]
    try:
        return _read(path, size), []
    except OSError as error:
        return 0.0, [f"The disk's speed is not measured: {error.strerror}"]


def _read(path: Path, size: int) -> float:
    """Reads from the middle on, with O_DIRECT; blocks are aligned, since a map is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        buffer = mmap.mmap(-1, BLOCK)
        stack.callback(buffer.close)
        offset = size // 2 // BLOCK * BLOCK
        done, started = 0, time.perf_counter()
        while offset + BLOCK <= size and time.perf_counter() - started < READ_SECONDS:
            done += os.preadv(descriptor, [buffer], offset)
            offset += BLOCK
        return done / (time.perf_counter() - started) / 1e9
