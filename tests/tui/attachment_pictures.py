"""Pictures of attachments and commands by name, on the built-in guide: `python -m tests.tui.attachment_pictures`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from textual import events

from tests.tui.chat_pictures import FOLDER, Photographer

SIZE = (100, 30)
NOTES = """# Machines

| name | RAM | GPU |
|---|---|---|
| ada | 64 GB | RTX 4090, 24 GB |
| grace | 192 GB | none |

ada is in the office, grace at home.
"""


def files(folder: Path) -> None:
    """The working folder of the pictures."""
    for name, text in (
        ("notes/machines.md", NOTES),
        ("notes/models.md", "Qwen3-30B-A3B runs on ada.\n"),
        ("src/plan.py", "def plan(ram, vram):\n    return ram + vram\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


async def attached(run: Photographer, number: int) -> None:
    """So many attachments are there, and counted."""
    chips = run.screen.chips
    await run.until(lambda: len(chips.attachments) == number and all(c.tokens for c in chips.chips))


async def take_all(folder: Path) -> None:
    """Every picture."""
    run = Photographer(SIZE)
    async with run.app.run_test(size=SIZE) as run.pilot:
        await run.ready()
        await run.pilot.press("slash")
        await run.until(lambda: run.screen.suggestions.is_open)
        await asyncio.sleep(0.3)
        run.shoot(folder, "commands")
        await run.pilot.press("ctrl+u", "at", *"mach")
        await run.until(lambda: run.screen.suggestions.is_open)
        await run.pilot.press("enter")
        await attached(run, 1)
        run.screen.prompt.post_message(events.Paste("tokens per second: 18.4\n" * 50))
        await attached(run, 2)
        await run.pilot.press("at", *"pl")
        await run.until(lambda: run.screen.suggestions.is_open)
        await asyncio.sleep(0.3)
        run.shoot(folder, "attachments")
        await run.pilot.press("ctrl+a", "delete", "backspace", "left", "enter")
        await run.until(lambda: run.app.screen is not run.screen)
        await asyncio.sleep(0.3)
        run.shoot(folder, "attachment")
        await run.pilot.press("escape", "escape")
        await run.ask("What is a mixture of experts?")
        run.shoot(folder, "attached")


def main() -> None:
    """Take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
    with tempfile.TemporaryDirectory() as work:
        files(Path(work))
        os.chdir(work)
        asyncio.run(take_all(folder))


if __name__ == "__main__":
    main()
