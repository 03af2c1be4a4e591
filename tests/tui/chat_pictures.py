"""Pictures of the chat from a real run on the built-in guide: `python -m tests.tui.chat_pictures`.

Engine, model, conversation and store are real; only the home is a temporary one, and the guide
answers greedily, so that the pictures can be made again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "screenshots"
OLDER = ("Which keys are there?", "What is a mixture of experts?", "Wie viel RAM brauche ich?")
QUESTIONS = (
    "Hello, my name is Ada.",
    "How do I copy the last code block?",
    "What is my name?",
)


class Photographer:
    """One run of the program."""

    def __init__(self, size: tuple[int, int], theme: str = "") -> None:
        from ktchat.app import KtchatApp
        from ktchat.common.paths import guide_model, settings_file
        from ktchat.common.settings import SettingsFile

        settings = SettingsFile(settings_file())
        settings.update(temperature=0.0, theme=theme)
        self.size = size
        self.app = KtchatApp(guide_model(), settings=settings)
        self.screen = self.app.chat_screen
        self.pilot: Pilot[None]

    async def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit("not reached")
            await asyncio.sleep(0.05)
        await self.pilot.pause()

    async def ask(self, question: str) -> None:
        """One turn."""
        chat = self.screen.chat
        assert chat is not None
        before = chat.conversation.last
        self.screen.prompt.put(question)
        await self.pilot.press("enter")
        await self.until(lambda: chat.conversation.last is not before and not chat.busy)
        await asyncio.sleep(0.3)

    async def ready(self) -> None:
        """The model and the session are there."""
        await self.until(lambda: self.screen.chat is not None)
        await self.until(lambda: not self.screen.activity.switching)
        await self.until(lambda: not self.screen.activity.loading)

    async def new_session(self) -> None:
        """Begin another session."""
        await self.pilot.press("ctrl+n")
        await self.until(lambda: self.screen.chat and not self.screen.chat.conversation.turns)

    def shoot(self, folder: Path, name: str) -> None:
        """Save a picture."""
        self.app.save_screenshot(f"{name}.svg", str(folder))


async def conversation(folder: Path, size: tuple[int, int], theme: str = "") -> None:
    """A conversation in which the third question needs the first."""
    run = Photographer(size, theme)
    name = f"chat-{size[0]}x{size[1]}" + (f"-{theme.removeprefix('ktchat-')}" if theme else "")
    async with run.app.run_test(size=size) as run.pilot:
        await run.ready()
        if size[0] > 120:
            for question in OLDER:
                await run.ask(question)
                await run.new_session()
        elif run.screen.chat and run.screen.chat.conversation.turns:
            await run.new_session()
        for question in QUESTIONS:
            await run.ask(question)
        run.shoot(folder, name)
        if not theme and size[0] == 80:
            await run.pilot.press("f1")
            await asyncio.sleep(0.3)
            run.shoot(folder, "keys")


async def take_all(folder: Path) -> None:
    """Every picture."""
    await conversation(folder, (160, 50))
    for size, theme in (((100, 30), ""), ((80, 24), ""), ((100, 30), "ktchat-light")):
        os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
        await conversation(folder, size, theme)


def main() -> None:
    """Take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
    asyncio.run(take_all(folder))


if __name__ == "__main__":
    main()
