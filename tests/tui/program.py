"""The screen on a scripted engine, for tests in a pseudo-terminal: `python -m tests.tui.program NAME`.

Prints to the file in KTCHAT_TEST_REPORT which heavy modules had been imported at the first frame.
"""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.protocol import Event
from ktchat import __main__ as entry
from ktchat import app, cli
from ktchat.app import KtchatApp
from tests.support.clock import PATIENCE
from tests.support.fake_engine import FakeEngine, Reply

PAYLOADS = (
    "\x1b]52;c;SGFja2Vk\x07",
    "\x1b]0;owned\x07",
    "\x1b]8;;file:///etc/passwd\x1b\\",
    "\x1bPq#owned\x1b\\",
    "\x1b_owned\x1b\\",
    "\x1b[2J\x1b[31;5m",
    "\x9b2J\x9d0;owned\x9c",
    "\x1b[6n\x05\x07\x08",
    "\u202eowned\u2066",
)
HOSTILE = "before " + "".join(f"x{payload}y " for payload in PAYLOADS) + "after"
ERROR = EngineError(f"It failed {HOSTILE}", HOSTILE, HOSTILE)

assert entry.INTERRUPTED == 130  # importing it is what takes Ctrl-C from the first moment

ATTRIBUTES = b"(attributes)"

HEAVY = ("torch", "numpy", "llama_cpp", "engine.client", "jinja2", "markdown_it", "pygments.lexers")


class DeafEngine(FakeEngine):
    """A reply that keeps the event loop for ever."""

    async def generate(self, *args: Any, **options: Any) -> AsyncIterator[Event]:
        while True:
            time.sleep(1)
        yield


def engine(name: str) -> FakeEngine:
    """The engine of a scenario."""
    if name == "hostile":
        replies = [
            Reply(
                f"{HOSTILE}\n\n```{HOSTILE}\n{HOSTILE}\n```\n\n# {HOSTILE}",
                thinking=HOSTILE,
                notice=HOSTILE,
            ),
            Reply(error=ERROR),
        ]
        return FakeEngine(replies, load_notice=HOSTILE)
    if name == "slow":
        return FakeEngine([Reply("word " * 5000, token_seconds=0.01)])
    if name == "deaf":
        return DeafEngine(["never said"])
    if name == "loading":
        return FakeEngine(["ok"], load_seconds=60, load_steps=600)
    return FakeEngine(["the reply"])


async def _noting_start(app: KtchatApp) -> None:
    """Note what was imported when the first frame was there, then go on."""
    report = os.environ.get("KTCHAT_TEST_REPORT")
    if report:
        found = [module for module in HEAVY if module in sys.modules]
        Path(report).write_text("\n".join(found))
    await _start(app)


_start = KtchatApp._start


def _mark_attributes() -> None:
    """Write a mark wherever the terminal gets attributes."""
    give = termios.tcsetattr

    def marked(descriptor: int, when: int, attributes: list[Any]) -> None:
        os.write(1, ATTRIBUTES)
        give(descriptor, when, attributes)

    termios.tcsetattr = marked  # type: ignore[assignment]


def main() -> int:
    """Run a scenario through the real command line."""
    name = sys.argv[1]
    model = "Fake" if name != "hostile" else f"Ev{HOSTILE.replace('/', '')}il"
    if name == "marked":
        _mark_attributes()
    app.QUIT_SECONDS = PATIENCE  # as long as the test needs for the second Ctrl+C
    KtchatApp._start = _noting_start  # type: ignore[method-assign]
    return cli.main(["-m", f"/models/{model}.gguf"], engine_factory=lambda: engine(name))


if __name__ == "__main__":
    raise SystemExit(main())
