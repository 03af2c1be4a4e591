"""Textual's driver for Linux and macOS, with the parser of this folder and any bytes as input."""

from __future__ import annotations

import os
import selectors
from codecs import getincrementaldecoder

from textual.drivers.linux_driver import LinuxDriver

from ktchat.terminal.parser import TerminalParser

READ_BYTES = 1 << 16


class TerminalDriver(LinuxDriver):
    """Reads the terminal; bytes that are no UTF-8 become U+FFFD instead of the program's end."""

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

    def _real_size(self) -> tuple[int, int] | None:
        try:
            columns, rows = os.get_terminal_size(self.fileno)
        except OSError:
            return None
        return (columns, rows) if columns and rows else None
