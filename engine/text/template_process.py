"""Runs a chat template in a process of its own (`engine.text.template_child`), with a clock."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.common.units import count
from engine.errors import TemplateError
from engine.gguf.header import shown

SECONDS = 2.0
"""Wall time for one answer."""
MAX_TEMPLATE = 256 << 10
"""Characters; real ones have up to some 20,000."""
MAX_ANSWER = 32 << 20
"""Bytes: the child's four million characters, each as an escape of JSON."""

_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")
"""What the child may know of ours: no tokens, no paths of the person."""
_CHILD = Path(__file__).with_name("template_child.py")
_CONFINEMENT = Path(__file__).parents[1] / "process" / "confinement.py"


class TemplateProcess:
    """One template and the child that renders it; started at once, again after it was killed."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._child: subprocess.Popen[bytes] | None = None
        self.kills = 0
        """How often the template had to be stopped."""
        if len(source) > MAX_TEMPLATE:
            raise TemplateError(
                "The chat template is too long", f"It has {count(len(source))} characters"
            )
        self._start()

    def _start(self) -> None:
        jinja2 = importlib.util.find_spec("jinja2")
        if jinja2 is None or jinja2.origin is None:
            raise TemplateError("Jinja2 is not installed", "", "Install ktchat again")
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-B",
                str(_CHILD),
                str(Path(jinja2.origin).parents[1]),
                str(_CONFINEMENT),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,
            bufsize=0,
        )
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
        self._unsent = _frame(self._source)

    def render(self, variables: dict[str, Any], deadline: float | None = None) -> str:
        """The template's text. `deadline` is on `time.monotonic`'s clock.

        Raises `TemplateError`: the template failed, took too long, or wrote too much.
        """
        deadline = time.monotonic() + SECONDS if deadline is None else deadline
        if self._child is None:
            self._start()
        try:
            self._send(self._unsent + _frame(variables), deadline)
            self._unsent = b""
            head = self._receive(4, deadline)
            size: int = struct.unpack(">I", head)[0]
            if size > MAX_ANSWER:
                raise TemplateError("The model's chat template failed", "It writes too much")
            answer = json.loads(self._receive(size, deadline))
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            late = isinstance(error, TimeoutError)
            why = f"It ran for more than {SECONDS:g} seconds" if late else "It ended its process"
            self.kill()
            raise TemplateError("The model's chat template failed", why) from None
        except TemplateError:
            self.kill()
            raise
        if isinstance(answer, dict) and isinstance(answer.get("text"), str):
            text: str = answer["text"]
            return text
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise TemplateError("The model's chat template failed", shown(str(reason), 200))

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._child is not None and self._child.stdin is not None
        pipe = self._child.stdin.fileno()
        view = memoryview(data)
        while view:
            _wait(pipe, select.POLLOUT, deadline)
            view = view[os.write(pipe, view) :]

    def _receive(self, count: int, deadline: float) -> bytes:
        assert self._child is not None and self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        data = bytearray()
        while len(data) < count:
            _wait(pipe, select.POLLIN, deadline)
            piece = os.read(pipe, count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def kill(self) -> None:
        """Stop the child; the next `render` starts another."""
        self.kills += 1
        self.close()

    def close(self) -> None:
        """Stop the child and wait for its end."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
        child.wait()


def _frame(value: Any) -> bytes:
    data = json.dumps(value).encode()
    return struct.pack(">I", len(data)) + data


def _wait(pipe: int, event: int, deadline: float) -> None:
    """Wait until the pipe can be read or written (or has ended)."""
    poll = select.poll()
    poll.register(pipe, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError
