"""Pictures of a full context from a real run on the built-in guide: `python -m tests.tui.overflow_pictures`.

The context is a small one, so that a short conversation fills it; all else is as in `chat_pictures`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.tui.chat_pictures import FOLDER, Photographer

CONTEXT = 640
QUESTIONS = (
    "Hello, my name is Ada.",
    "What is a mixture of experts?",
    "How much RAM do I need for Qwen3-30B-A3B?",
    "What does the plan say about VRAM?",
    "How do I copy the last code block?",
    "What is a KV cache?",
    "How do I stop a reply?",
    "What is min-p good for?",
    "What is a quantisation?",
    "Which models run well on a laptop?",
    "How do I begin a new session?",
    "What does the header show?",
    "Where are my sessions kept?",
    "Can I read them on the command line?",
)


async def take_all(folder: Path) -> None:
    """The sheet, and the line behind which turns are no longer read."""
    run = Photographer((80, 24))
    run.app.context.settings.update(context=CONTEXT, max_tokens=60, disk_cache=False)
    async with run.app.run_test(size=run.size) as run.pilot:
        await run.ready()
        chat, screen = run.screen.chat, run.screen
        assert chat is not None
        for number, question in enumerate(QUESTIONS):
            screen.prompt.put(question)
            await run.pilot.press("enter")
            await run.until(
                lambda number=number: (
                    run.app.screen is not screen
                    or (len(chat.conversation.turns) > number and not screen.activity.busy)
                )
            )
            if run.app.screen is not screen:
                break
        await asyncio.sleep(1.5)  # the figures of a longer context
        run.shoot(folder, "overflow")
        turns = len(chat.conversation.turns)
        await run.pilot.press("down", "enter")
        await run.until(lambda: "Enter take it" in _text(run))
        run.shoot(folder, "overflow-summary")
        await run.pilot.press("enter")
        await run.until(lambda: len(chat.conversation.turns) > turns and not screen.activity.busy)
        await run.pilot.press("shift+tab", *["up"] * 2 * turns)
        while not hasattr(screen.focused, "compaction"):
            await run.pilot.press("down")
        await run.pilot.press("enter", *["ctrl+down"] * 3)
        await asyncio.sleep(0.3)
        run.shoot(folder, "overflow-unread")


def _text(run: Photographer) -> str:
    return "\n".join(strip.text for strip in run.app.screen._compositor.render_strips())


def main() -> None:
    """Take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["KTCHAT_HOME"] = tempfile.mkdtemp(prefix="ktchat-pictures-")
    asyncio.run(take_all(folder))


if __name__ == "__main__":
    main()
