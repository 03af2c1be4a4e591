"""Helpers for tests that run the command line as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ktchat.store.conversation import Conversation
from ktchat.store.store import Store
from tests.support import shared
from tests.support.clock import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def _heed_interrupts() -> None:
    """A suite that was started in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
        options = {
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "timeout": PATIENCE,
            **options,
        }
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
        return subprocess.Popen(
            command, env=environment, cwd=ROOT, preexec_fn=_heed_interrupts, **options
        )

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
        return process.wait(PATIENCE), data.decode("utf-8", "replace")

    def knows_the_machine(self) -> Program:
        """Put what is measured of this machine into the home: it takes seconds, and is done once in a run."""
        place = self.home / "cache" / "machine.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(shared.once(shared.folder() / "machine.json", _measure).read_bytes())
        return self

    def sessions(self) -> list[Conversation]:
        """What is saved, the last used first."""
        with closing(Store(self.database)) as store:
            return [store.load(summary.id) for summary in store.sessions()]


def _measure(target: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        program = Program(Path(home))
        program.run("doctor", check=True)
        (program.home / "cache" / "machine.json").rename(target)


def one_clear_line(text: str) -> bool:
    """Whether this is what a person should see on standard error after a failure."""
    lines = text.splitlines()
    return len(lines) == 1 and lines[0].startswith("ktchat") and "Traceback" not in text
