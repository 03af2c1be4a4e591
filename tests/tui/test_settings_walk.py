"""The settings on the real engine with the built-in guide, by keyboard alone: what is chosen is what the engine does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.client import Engine
from ktchat.common.paths import guide_model
from ktchat.common.settings import SettingsFile
from tests.tui.conftest import Running, Start
from tests.tui.test_settings import fill_in, opened, typed, walk
from tests.tui.test_walk import asked, settled

pytestmark = pytest.mark.xdist_group("guide")


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_chosen_by_keys_and_done_by_the_engine(
    start: Start, home: Path, size: tuple[int, int]
) -> None:
    SettingsFile(home / "settings.toml").update(setup_done=True, disk_cache=False)
    engine = Engine()
    run = await start(size=size, engine=engine, model=str(guide_model()))  # type: ignore[arg-type]
    try:
        await _walk(run)
    finally:
        await engine.close()


async def _walk(run: Running) -> None:
    await opened(run, "temperature")
    await typed(run, "temperature", "0")
    await typed(run, "max_tokens", "8")
    await run.press("escape")
    await asked(run, "What can you do?")
    first = run.last
    assert (first.sampling.temperature, first.max_tokens, first.reason) == (0.0, 8, "length")
    assert first.figures is not None and first.figures.reply_tokens == 8

    await run.press("ctrl+r")
    await run.until(lambda: run.last is not first and not run.chat.busy)
    await settled(run)
    assert run.last.raw_reply == first.raw_reply, "greedy"

    await opened(run, "system")
    await run.press("enter")
    await run.sees("Enter keep")
    await run.type("Be short")
    await run.press("enter")
    await run.until(lambda: run.chat.conversation.system == "Be short")
    await typed(run, "context", "640", tabs=1)
    await run.until(lambda: run.screen.models.outdated == ("context",))
    await run.press("l")
    await run.until(lambda: not run.screen.activity.loading and run.chat.context_size == 640)
    await asked(run, "And now?")
    assert run.last.reason == "length"

    await opened(run, "seed")
    await run.press("p")
    await run.until(lambda: len(run.app.screen_stack) == 3)
    await run.press("home", "down", "down", "down", "enter")
    await run.until(lambda: run.chat.layers.sampling.temperature == 1.1)
    await walk(run, "seed")
    await run.press("enter")
    await run.sees("Enter keep")
    await fill_in(run, "5")
    await run.until(lambda: run.chat.layers.sampling.seed == 5)
    await run.press("escape")
    replies = []
    for _ in range(2):
        last = run.last
        await run.press("ctrl+r")
        await run.until(lambda last=last: run.last is not last and not run.chat.busy)
        await settled(run)
        assert run.last.figures is not None and run.last.figures.seed == 5
        replies.append(run.last.raw_reply)
    assert replies[0] == replies[1], "the same seed, the same reply"
