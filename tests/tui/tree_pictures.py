"""Pictures of versions, of the search and of an export, on the built-in guide: `python -m tests.tui.tree_pictures`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.tui.chat_pictures import FOLDER, OLDER, Photographer

SIZE = (100, 30)


async def versions(run: Photographer, folder: Path) -> None:
    """A reply with versions, changed by hand, with the focus on it."""
    await run.ask("What can you do?")
    await run.ask("Which keys are there?")
    chat = run.screen.chat
    assert chat is not None
    await run.pilot.press("ctrl+r")
    await run.until(lambda: len(chat.conversation.others) == 1 and not chat.busy)
    await asyncio.sleep(0.3)
    await run.pilot.press("shift+tab", "up", "up")
    await asyncio.sleep(0.3)
    await run.pilot.press("e")
    run.screen.prompt.put("I answer questions about ktchat: keys, sessions, models, memory.")
    await run.pilot.press("enter")
    await asyncio.sleep(0.5)
    await run.pilot.press("shift+tab")
    await asyncio.sleep(0.5)
    run.shoot(folder, "versions")


async def search(run: Photographer, folder: Path) -> None:
    """Words found in every session."""
    for question in OLDER:
        await run.new_session()
        await run.ask(question)
    await run.pilot.press("ctrl+f", "tab", *"keys")
    await asyncio.sleep(1.0)
    run.shoot(folder, "search")
    await run.pilot.press("escape")


async def take_all(folder: Path) -> None:
    """Every picture."""
    run = Photographer(SIZE)
    async with run.app.run_test(size=SIZE) as run.pilot:
        await run.ready()
        await versions(run, folder)
        await search(run, folder)


def main() -> None:
    """Take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
    asyncio.run(take_all(folder))


if __name__ == "__main__":
    main()
