"""The program's entry: `ktchat` and `python -m ktchat`.

It ends with an exit code, never with the traceback of an interrupt. It takes Ctrl-C before anything
else, so that one during the imports ends quietly too.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # as in typing, whose import would delay what follows
if TYPE_CHECKING:
    from collections.abc import Callable

    from ktchat.session.reply import Engine

INTERRUPTED = 130


def _end_now(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_now)


def main(engine_factory: Callable[[], Engine] | None = None) -> int:
    """Run the command line of this process; returns its exit code.

    `engine_factory` makes the engine; tests put a scripted one in its place.
    """
    from ktchat.cli import main as run

    try:
        return run(engine_factory=engine_factory)
    finally:
        # The exit code is decided; while Python ends, its default action would change it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    raise SystemExit(main())
