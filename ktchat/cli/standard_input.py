"""What is piped into a command."""

from __future__ import annotations

import select
import sys

from engine.errors import RequestError
from ktchat.cli import output
from ktchat.common.errors import reason_of

MAX_INPUT = 16 << 20
"""Bytes that are read."""

IDLE_SECONDS = 2.0
"""After so long without a byte it is said that they are waited for."""

IN_LOOPS = (
    "Piped text is read to its end: in a loop that reads its own lines from the standard input,"
    " say --no-stdin, or the first run takes them all."
)
"""For a command's help."""


def piped() -> str:
    """The text that is piped in, without the line ends around it; empty on a terminal.

    Bytes that are not UTF-8 are replaced. Raises `RequestError`.
    """
    if sys.stdin is None or output.is_terminal(sys.stdin):
        return ""
    try:
        if not select.select([sys.stdin], [], [], IDLE_SECONDS)[0]:
            output.complain("waiting for standard input; </dev/null goes without")
        data = sys.stdin.buffer.read(MAX_INPUT + 1)
    except (OSError, ValueError) as error:
        why = reason_of(error)[0] if isinstance(error, OSError) else "it is closed"
        raise RequestError("The standard input cannot be read", why) from error
    if len(data) > MAX_INPUT:
        raise RequestError(
            "The standard input is too long",
            f"At most {MAX_INPUT >> 20} MiB are read",
            "Send a part of it",
        )
    return data.decode("utf-8-sig", "replace").strip("\n")
