"""Standard output and standard error, also when nobody reads them or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from typing import IO

from ktchat.common.text import sanitise


class OutputClosedError(Exception):
    """Standard output cannot be written; `reason` is empty when its reader just went away."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def prepare() -> None:
    """Characters that the terminal's encoding lacks are replaced, not fatal."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def write(text: str, stream: IO[str] | None = None) -> None:
    """Write and flush. Raises `OutputClosedError` on standard output; is silent on others.

    Standard output is the one door for what models and files say: on a terminal it is made safe to draw.
    """
    target = stream or sys.stdout
    if target is None:
        raise OutputClosedError("it is closed")
    if target is sys.stdout and is_terminal(target):
        text = sanitise(text)
    try:
        target.write(text)
        target.flush()
    except (OSError, ValueError) as error:
        if target is sys.stdout:
            raise _closed(error) from error


def line(text: str = "") -> None:
    """Write one line on standard output."""
    write(text + "\n")


def wrapped(text: str, lead: str = "") -> None:
    """Write `lead` and a text; on a terminal in as many lines as its width takes, those after the
    first under the text. Words longer than a line stay whole."""
    if not is_terminal(sys.stdout):
        line(lead + text)
        return
    from engine.common.cells import cells, wrap  # not needed for --version

    columns = shutil.get_terminal_size((80, 24)).columns
    under = "\n" + " " * cells(lead)
    line(lead + under.join(wrap(text, max(20, columns - cells(lead)))))


def complain(text: str) -> None:
    """Write one line on standard error."""
    if sys.stderr is not None:
        write(f"ktchat: {text}\n", sys.stderr)


def flush() -> None:
    """Write what standard output still holds."""
    if sys.stdout is not None:
        write("")


def abandon(error: OutputClosedError) -> None:
    """Give standard output up, so that nothing is written to it at exit, and say why."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if error.reason:
        complain(f"Nothing more can be written to the output: {error.reason}.")


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a stream is a terminal; a closed one is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _closed(error: OSError | ValueError) -> OutputClosedError:
    if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EBADF):
        from ktchat.common.errors import reason_of

        return OutputClosedError(reason_of(error)[0])
    return OutputClosedError("")
