"""A path becomes an attachment: text and PDF in a process of its own, a folder as the list of what is in it.

Everything blocks: call it in a thread.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

from engine.common.os_errors import os_reason
from engine.common.units import byte_size
from engine.process.environment import environment
from ktchat.attachments.attachment import (
    MAX_CHARACTERS,
    Attachment,
    digest_of,
    shown_name,
)
from ktchat.attachments.finding import below
from ktchat.common.errors import AttachmentError
from ktchat.common.text import one_line, sanitise

MAX_LISTED = 2000
"""Names in a folder's list."""
CPU_SECONDS = 30
"""Processor time for one file."""
WALL_SECONDS = 300.0
"""For a file that comes slowly, or a machine that is busy."""
MEMORY = 1 << 30
MAX_ANSWER = 6 * MAX_CHARACTERS + (1 << 16)
"""Bytes: every character an escape of JSON."""


def read(path: Path, *, seconds: int = CPU_SECONDS, memory: int = MEMORY) -> Attachment:
    """The attachment at `path`. Raises `AttachmentError`, which says in words why it is none."""
    name = shown_name(str(path))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = os_reason(error)[0] if isinstance(error, OSError) else "That is not a path"
        if isinstance(error, FileNotFoundError):
            why = "There is no such file"
        raise _refused(name, why) from error
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            return _listed(path, name)
        if not stat.S_ISREG(mode):
            raise _refused(name, "It is neither a file nor a folder")
        return _read_file(handle, path, name, seconds, memory)
    finally:
        os.close(handle)


def is_model(path: Path) -> bool:
    """Whether a path leads to a GGUF file."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _read_file(handle: int, path: Path, name: str, seconds: int, memory: int) -> Attachment:
    command = [sys.executable, "-P", "-m", "ktchat.attachments.reader_child"]
    child = subprocess.Popen(
        [*command, str(seconds), str(memory), str(MAX_CHARACTERS)],
        stdin=handle,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(os.environ),
        start_new_session=True,
    )
    timer = threading.Timer(WALL_SECONDS, child.kill)
    timer.daemon = True
    timer.start()
    try:
        assert child.stdout is not None
        data = child.stdout.read(MAX_ANSWER + 1)
    finally:
        timer.cancel()
        child.kill()
        if child.stdout is not None:
            child.stdout.close()
        child.wait()
    return _attachment(data, path, name)


def _attachment(data: bytes, path: Path, name: str) -> Attachment:
    try:
        answer = json.loads(data) if len(data) <= MAX_ANSWER else {}
    except ValueError:
        answer = {}
    if not answer:
        raise _refused(name, "It takes too long or too much memory to read", "Attach a part of it")
    if refused := answer.get("refused"):
        raise _refused(name, *map(one_line, refused[:2]))
    text = sanitise(answer["text"])
    if not text.strip():
        raise _refused(name, "There is nothing in it")
    return Attachment(name, text, answer["kind"], answer["sha256"], answer["size"], path=str(path))


def _listed(path: Path, name: str) -> Attachment:
    """A folder as the list of what is in it."""
    lines: list[str] = []
    for inside in below(path, most=MAX_LISTED + 1):
        lines.append(inside if inside.endswith("/") else f"{inside}  {_size(path / inside)}")
    if not lines:
        raise _refused(name, "There is nothing in this folder that could be listed")
    more = [f"… and more: the list ends after {MAX_LISTED}"] if len(lines) > MAX_LISTED else []
    text = sanitise("\n".join([*sorted(lines[:MAX_LISTED]), *more]) + "\n")
    size = len(text.encode("utf-8", "replace"))
    return Attachment(f"{name}/", text, "folder", digest_of(text), size, path=str(path))


def _size(path: Path) -> str:
    try:
        return byte_size(path.stat().st_size)
    except OSError:
        return ""


def _refused(name: str, why: str, todo: str = "") -> AttachmentError:
    return AttachmentError(f"{name} was not attached", why, todo)
