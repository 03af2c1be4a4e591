"""Copies text through the terminal (OSC 52), and through the desktop's own program if there is one.

Many terminals ignore OSC 52, and over ssh the desktop is elsewhere: both are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from typing import Any

from textual.app import App

_PROGRAMS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("WAYLAND_DISPLAY", "wl-copy", ()),
    ("DISPLAY", "xclip", ("-selection", "clipboard")),
    ("DISPLAY", "xsel", ("--clipboard", "--input")),
)
"""Environment variable of the desktop, the program, and its arguments."""

_SECONDS = 2.0


async def copy(app: App[Any], text: str) -> None:
    """Put `text` on the clipboard."""
    app.copy_to_clipboard(text)
    command = _command()
    if command is None:
        return
    with contextlib.suppress(OSError, TimeoutError):
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await asyncio.wait_for(process.communicate(text.encode()), _SECONDS)


def _command() -> tuple[str, ...] | None:
    if sys.platform == "darwin":
        return ("pbcopy",)
    for variable, program, arguments in _PROGRAMS:
        if os.environ.get(variable) and shutil.which(program):
            return (program, *arguments)
    return None
