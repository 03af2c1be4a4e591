"""Helpers for tests that run the command line as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ktchat.store.conversation import Conversation
from ktchat.store.store import Store

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """ktchat in a home of its own, with these environment variables."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home, self.variables = home, variables

    @property
    def database(self) -> Path:
        return self.home / "ktchat.db"

    def environment(self, **extra: str) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("KTCHAT_", "XDG_"))},
            "KTCHAT_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.variables,
            **extra,
        }

    def command(self, script: Mapping[str, object] | None, *arguments: str) -> list[str]:
        if script is None:
            return [sys.executable, "-m", "ktchat", *arguments]
        module = "tests.support.fake_cli"
        return [sys.executable, "-m", module, json.dumps(script), *arguments]

    def run(
        self, *arguments: str, script: Mapping[str, object] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end. Without `script`: the real program."""
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 30, **options}
        if "input" in options:
            del options["stdin"]
        environment = self.environment(**options.pop("env", {}))
        command = self.command(script, *arguments)
        return subprocess.run(command, env=environment, encoding="utf-8", cwd=ROOT, **options)

    def start(
        self, *arguments: str, script: Mapping[str, object] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start it and leave it running."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "bufsize": 0,
            **options,
        }
        environment = self.environment(**options.pop("env", {}))
        command = self.command(script, *arguments)
        return subprocess.Popen(command, env=environment, cwd=ROOT, **options)

    def in_terminal(
        self, *arguments: str, script: Mapping[str, object] | None = None
    ) -> tuple[int, str]:
        """Run on a terminal; exit code and everything that was written to it."""
        master, slave = pty.openpty()
        process = self.start(*arguments, script=script, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        data = b""
        with closing(os.fdopen(master, "rb", buffering=0)) as terminal:
            while True:
                try:
                    chunk = terminal.read(65536)
                except OSError:  # the other end is closed
                    break
                if not chunk:
                    break
                data += chunk
        return process.wait(30), data.decode("utf-8", "replace")

    def sessions(self) -> list[Conversation]:
        """What is saved, the last used first."""
        with closing(Store(self.database)) as store:
            return [store.load(summary.id) for summary in store.sessions()]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


def one_clear_line(text: str) -> bool:
    """Whether this is what a person should see on standard error after a failure."""
    lines = text.splitlines()
    return len(lines) == 1 and lines[0].startswith("ktchat") and "Traceback" not in text
