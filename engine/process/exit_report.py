"""What a child's exit status and its last output mean to the person."""

from __future__ import annotations

import signal

from engine.errors import EngineError

AGAIN = "Try again: the engine starts anew by itself"

_HINTS: dict[int, str] = {
    signal.SIGKILL: "by hand, or by the system because memory ran out",
    signal.SIGSEGV: "native code reached for memory that is not its own",
    signal.SIGABRT: "native code gave up",
    signal.SIGILL: "the native library uses an instruction that this CPU lacks",
    signal.SIGBUS: "the model file was shortened, or its disk failed, while it was read",
}


def died(status: int, log: str) -> EngineError:
    """What a child's exit status and last words mean."""
    if status < 0:
        name = signal.Signals(-status).name if -status in signal.valid_signals() else str(-status)
        why = f"It was ended by {name}"
        if hint := _HINTS.get(-status):
            why += f": {hint}"
    else:
        why = f"It ended with status {status}"
    if status not in (-signal.SIGKILL, -signal.SIGTERM) and (words := last_words(log)):
        why += f". It last said: {words}"
    return EngineError("The engine stopped unexpectedly", why, AGAIN)


def last_words(log: str) -> str:
    """The line of the log that tells most: the last that speaks of an error, else the last.

    Python's own dump of its stack, which comes last, only repeats the signal.
    """
    said = log.partition("Fatal Python error")[0]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "ASSERT" in line or "abort" in line]
    return (telling or lines or [""])[-1][:240]
