"""The screen on a scripted engine, for tests in a pseudo-terminal: `python -m tests.tui.program NAME`.

Prints to the file in KTCHAT_TEST_REPORT which heavy modules had been imported at the first frame.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.errors import EngineError
from ktchat.app import KtchatApp
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

HEAVY = ("torch", "numpy", "llama_cpp", "engine.client", "jinja2", "markdown_it", "pygments.lexers")


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
    if name == "loading":
        return FakeEngine(["ok"], load_seconds=60, load_steps=600)
    return FakeEngine(["the reply"])


class Program(KtchatApp):
    """Notes what was imported when the first frame was there."""

    async def _start(self) -> None:
        report = os.environ.get("KTCHAT_TEST_REPORT")
        if report:
            found = [module for module in HEAVY if module in sys.modules]
            Path(report).write_text("\n".join(found))
        await super()._start()


def main() -> None:
    """Run a scenario."""
    name = sys.argv[1]
    model = (
        f"/models/Ev{HOSTILE.replace('/', '')}il.gguf" if name == "hostile" else "/models/Fake.gguf"
    )
    app = Program(model, engine=engine(name))
    app.run()
    raise SystemExit(app.return_code or 0)


if __name__ == "__main__":
    main()
