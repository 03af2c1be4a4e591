"""Pictures of the settings from a real run on the built-in guide: `python -m tests.tui.settings_pictures`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.tui.chat_pictures import FOLDER, Photographer

SIZE = (90, 38)


async def take_all(folder: Path) -> None:
    """The settings of a session that has some of its own, its presets, and a number being changed."""
    run = Photographer(SIZE)
    file = run.app.context.settings
    file.update(temperature=0.6, overflow="drop")
    async with run.app.run_test(size=run.size) as run.pilot:
        await run.ready()
        chat = run.screen.chat
        assert chat is not None
        file.update_model(chat.model_path, context=4096)
        file.keep_preset("for Grandmother", {"temperature": 0.9, "system": "Be warm."})
        chat.choose(temperature=1.1, system="Answer in two sentences.")
        await run.pilot.press("ctrl+l")
        await asyncio.sleep(0.5)
        run.shoot(folder, "settings")
        await run.pilot.press("enter")
        await asyncio.sleep(0.5)
        run.shoot(folder, "settings-change")
        await run.pilot.press("escape", "p", "down")
        await asyncio.sleep(0.5)
        run.shoot(folder, "settings-presets")


def main() -> None:
    """Take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
    asyncio.run(take_all(folder))


if __name__ == "__main__":
    main()
