"""Faults on purpose, for tests: `KTCHAT_FAULT=<fault>@<phase>` in the engine process's environment.

Faults: abort (SIGABRT), segfault (SIGSEGV), exit (status 3), error (an unexpected exception), memory (no
memory left), hang (for ever, in native code), freeze (for ever, holding Python's lock). Phases: load,
prefill, decode (once the first event of that phase is on its way) and idle (after a command). Without
the variable nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

from engine.protocol import (
    Event,
    Finished,
    Loaded,
    Progress,
    Text,
    Thinking,
)

VARIABLE = "KTCHAT_FAULT"


def _error() -> None:
    raise ZeroDivisionError("a fault on purpose")


def _memory() -> None:
    raise MemoryError


_FAULTS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "error": _error,
    "memory": _memory,
    "hang": lambda: ctypes.CDLL(None).pause(),
    "freeze": lambda: ctypes.PyDLL(None).pause(),
}


def _phase(event: Event) -> str | None:
    match event:
        case Progress(stage=stage):
            return stage
        case Text() | Thinking():
            return "decode"
        case Loaded() | Finished():
            return "idle"
    return None


def faulty(emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """`emit`, then the fault that the environment asks for in the event's phase."""
    fault, _, wanted = os.environ.get(VARIABLE, "").partition("@")
    if fault not in _FAULTS:
        return emit

    def emit_and_fail(event: Event) -> None:
        emit(event)
        if _phase(event) == wanted:
            time.sleep(0.05)
            _FAULTS[fault]()

    return emit_and_fail
