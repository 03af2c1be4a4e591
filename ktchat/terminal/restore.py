"""The terminal as it was, for a program that must end without its driver's help."""

from __future__ import annotations

import contextlib
import os
import termios
import threading
import time
from typing import Any

_MODES = (
    *("\x1b[?2004l", "\x1b[?7h", "\x1b[?2048l", "\x1b[?1000l", "\x1b[?1003l", "\x1b[?1015l"),
    *("\x1b[?1006l", "\x1b[?1016l", "\x1b[?2026l", "\x1b[<u", "\x1b[?1049l", "\x1b[?25h"),
    "\x1b[?1004l",
)
"""Takes back what `LinuxDriver.start_application_mode` sets, in the order of its own way out."""


class Restorer:
    """Remembers the attributes of the terminal at `descriptor`; `restore` may be called in any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._attributes: list[Any] | None = None
        with contextlib.suppress(termios.error):
            self._attributes = termios.tcgetattr(descriptor)

    def restore(self) -> None:
        """Give the terminal back without waiting: one that takes no bytes keeps its modes."""
        if self._attributes is None:
            return
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._attributes)
        with contextlib.suppress(OSError):
            os.set_blocking(self._descriptor, False)
            try:
                os.write(self._descriptor, "".join(_MODES).encode())
            finally:
                os.set_blocking(self._descriptor, True)

    def end_soon(self, seconds: float, code: int) -> None:
        """End the program after so long with this exit code, whatever hangs; the terminal is given back first."""
        threading.Thread(target=self._end, args=(seconds, code), daemon=True).start()

    def _end(self, seconds: float, code: int) -> None:
        time.sleep(seconds)
        self.restore()
        os._exit(code)
