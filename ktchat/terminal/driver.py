"""Textual's driver for Linux and macOS, with the parser of this folder and any bytes as input."""

from __future__ import annotations

import contextlib
import os
import selectors
import termios
import time
from codecs import getincrementaldecoder
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

from ktchat.terminal.parser import TerminalParser

READ_BYTES = 1 << 16
READ_SECONDS = 0.03
"""Time in which a terminal reads what was written last."""


class TerminalDriver(LinuxDriver):
    """Reads the terminal; bytes that are no UTF-8 become U+FFFD instead of the program's end."""

    _attributes: list[Any] | None = None
    """Of the terminal as it was, between the end of the screen and `close`."""

    def run_input_thread(self) -> None:
        """Hand over events until the program ends."""
        parser = TerminalParser(self._debug, size=self._real_size)
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        with selectors.SelectSelector() as terminal:
            terminal.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if terminal.select(0.02 if parser.waits else 0.1):
                    data = os.read(self.fileno, READ_BYTES)
                    if not data:
                        return
                    for event in parser.feed(decode(data)):
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)

    def close(self) -> None:
        """Write what is left, and only then give the terminal its attributes back.

        With them a Ctrl+C is the system's again, which drops what the terminal has not read: it would stay on the
        other screen, without a cursor.
        """
        super().close()
        attributes, self._attributes = self._attributes, None
        if attributes is not None:
            time.sleep(READ_SECONDS)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.fileno, termios.TCSANOW, attributes)

    def stop_application_mode(self) -> None:
        """Queue what takes the modes back; the attributes follow in `close`."""
        if self.attrs_before is not None:
            self._attributes, self.attrs_before = self.attrs_before, None
        super().stop_application_mode()

    def _real_size(self) -> tuple[int, int] | None:
        try:
            columns, rows = os.get_terminal_size(self.fileno)
        except OSError:
            return None
        return (columns, rows) if columns and rows else None
