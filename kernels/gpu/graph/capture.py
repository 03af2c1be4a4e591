"""Capturing a CUDA graph: `torch.cuda.graph`, and what it leaves to its callers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_failed: list[Any] = []
"""Graphs whose capture failed: torch's allocators go on asking them which streams they capture
(CUDAGraph.cpp gives them a function that refers to the graph, and takes it back after a good end only)."""


@contextmanager
def capturing(graph: Any, stream: Any) -> Iterator[None]:
    """Work inside becomes `graph`. `stream` is a side stream of the current device.

    torch's own side stream is one for the process, on the device that captured first: it is not asked.
    Other threads may call CUDA meanwhile (uploads do).
    """
    here = torch.cuda.current_stream()
    # Garbage of an earlier model may hold pinned memory that a captured stream used. Freed in a capture,
    # it would have an event recorded in that stream, which torch then asks for and CUDA refuses.
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            yield
    except BaseException:
        _failed.append(graph)
        torch.cuda.set_stream(here)  # torch stays on the side stream where a capture's end fails
        raise
    finally:
        if collects:
            gc.enable()
