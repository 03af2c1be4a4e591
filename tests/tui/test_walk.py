"""The tree and the search on the real engine with the built-in guide, by keyboard alone at 80x24."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.client import Engine
from ktchat.common.paths import guide_model
from ktchat.common.settings import SettingsFile
from tests.tui.conftest import Running, Start

pytestmark = pytest.mark.xdist_group("guide")

SMALL = (80, 24)


async def settled(run: Running) -> None:
    await run.until(lambda: not run.screen.activity.replying and not run.chat.busy)


async def asked(run: Running, text: str) -> None:
    """Type a message, send it, and wait for its reply."""
    before = run.chat.conversation.last
    await run.type(text)
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.last is not before)
    await settled(run)


async def test_a_conversation_is_cut_continued_changed_walked_branched_and_found(
    start: Start, home: Path
) -> None:
    SettingsFile(home / "settings.toml").update(temperature=0.0, max_tokens=8, setup_done=True)
    engine = Engine()
    run = await start(size=SMALL, engine=engine, model=str(guide_model()))  # type: ignore[arg-type]
    try:
        await asked(run, "What can you do?")
        await run.sees("the reply reached its limit of tokens", "F9 goes on")
        first = run.last.raw_reply
        await run.press("f9")
        await settled(run)
        figures = run.last.figures
        assert run.last.raw_reply.startswith(first) and len(run.last.raw_reply) > len(first)
        assert figures is not None and figures.reply_tokens == 16
        assert figures.prompt_tokens - figures.cached_tokens <= 2, "in the same KV"

        await asked(run, "Which keys are there?")
        await run.press("shift+tab", "up", "up", "r")  # the first reply, anew
        await settled(run)
        await run.sees("‹ 2/2 ›")
        assert run.last.raw_reply == first, "greedy, and cut where the first one was"
        await run.press("shift+tab", "left")
        await run.sees("‹ 1/2 ›", "Which keys are there?")
        await run.press("e")
        await run.sees("editing the reply")
        run.screen.prompt.put("I know one word: zebra.")
        await run.press("enter")
        await run.sees("changed by you", "I know one word: zebra.", "Which keys are there?")

        await run.press("shift+tab", "up", "up", "b")
        await run.until(lambda: len(run.chat.conversation.turns) == 1)
        await settled(run)
        await asked(run, "and now?")
        assert [t.raw_prompt for t in run.chat.conversation.turns] == [
            "What can you do?",
            "and now?",
        ]

        await run.press("ctrl+n")
        await run.until(lambda: not run.chat.conversation.turns)
        await run.press("ctrl+f")
        await run.type("zebra")
        await run.sees("2 hits")
        await run.press("down", "enter")
        await run.sees("I know one word: zebra.", "Which keys are there?")
    finally:
        await engine.close()
