"""A terminal that is gone: the system tells only the session's leader, which may be another program."""

from __future__ import annotations

import os
import select
import signal
import time


def watch_terminal(descriptor: int) -> None:
    """Send this process SIGHUP when its terminal is gone. Runs until then: in a thread of its own."""
    terminal = select.poll()
    terminal.register(descriptor, 0)  # a hang-up is reported without being asked for
    while not any(event & select.POLLHUP for _, event in terminal.poll()):
        time.sleep(1)  # another error: nothing to wait for
    os.kill(os.getpid(), signal.SIGHUP)
