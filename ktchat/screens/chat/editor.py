"""The prompt in the person's own editor: $VISUAL or $EDITOR on a private temporary file.

The screen is suspended meanwhile.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

from engine.common.units import count
from engine.errors import KtchatError

_FALLBACKS = ("sensible-editor", "nano", "vim", "vi")
MAX_BYTES = 4 << 20


class EditorError(KtchatError):
    """The editor could not be run, or what it left could not be read."""


def edit(app: App[Any], text: str) -> str:
    """Let the person edit `text`; returns what the editor left. Raises `EditorError`.

    Blocks the event loop: the terminal belongs to the editor.
    """
    command = _command()
    handle, name = tempfile.mkstemp(prefix="ktchat-", suffix=".md")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        _run(app, [*command, name])
        return _read(Path(name))
    finally:
        Path(name).unlink(missing_ok=True)


def _run(app: App[Any], command: list[str]) -> None:
    """Lend the terminal to the editor until it ends."""
    failure: OSError | None = None
    code = 0
    try:
        with app.suspend():  # an exception in here would leave the screen suspended
            try:
                code = subprocess.run(command, check=False).returncode
            except OSError as error:
                failure = error
    except SuspendNotSupported as error:
        raise EditorError(
            "The editor was not started", "This terminal cannot lend it the screen"
        ) from error
    if failure is not None:
        raise EditorError(
            f"The editor {command[0]} was not started",
            failure.strerror or str(failure),
            "Set $VISUAL or $EDITOR to another one",
        ) from failure
    if code != 0:
        raise EditorError(f"The editor ended with code {code}", "The prompt is as it was", "")


def _command() -> list[str]:
    for variable in ("VISUAL", "EDITOR"):
        value = os.environ.get(variable, "").strip()
        if value:
            try:
                return shlex.split(value)
            except ValueError as error:
                raise EditorError(
                    f"${variable} cannot be understood", str(error), "Set it anew"
                ) from error
    for program in _FALLBACKS:
        if shutil.which(program):
            return [program]
    raise EditorError("There is no editor", "$VISUAL and $EDITOR are not set", "Set one of them")


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EditorError("The edited text cannot be read", error.strerror or "", "") from error
    if len(data) > MAX_BYTES:
        raise EditorError(
            "The edited text is too long", f"It has {count(len(data))} bytes", "Shorten it"
        )
    return data.decode("utf-8", errors="replace").removesuffix("\n")
