"""The program's entry: `ktchat` and `python -m ktchat`.

Knows how the program ends: with an exit code and never with a traceback of an interrupt. The first
thing it does is to take Ctrl-C, so that one during the imports ends quietly too.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130


def _end_now(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_now)


def main() -> int:
    """Run the command line of this process; returns its exit code."""
    from ktchat.cli import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
