"""A picture of F12 from a real run on the built-in guide: `python -m tests.tui.inside_pictures`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from engine.machine.probe import probe
from tests.tui.chat_pictures import FOLDER, Photographer

QUESTIONS = ("What is a mixture of experts?", "How much RAM do I need for Qwen3-30B-A3B?")


async def take_all(folder: Path) -> None:
    """The panel beside the conversation."""
    probe()  # measures the memory's speed, which says what limits
    run = Photographer((120, 30))
    async with run.app.run_test(size=run.size) as run.pilot:
        await run.ready()
        run.app.context.remember(session_list=False)
        run.screen.place_parts()
        await run.pilot.press("f12")
        for question in QUESTIONS:
            await run.ask(question)
        run.shoot(folder, "inside")


def main() -> None:
    """Take the picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
    asyncio.run(take_all(folder))


if __name__ == "__main__":
    main()
