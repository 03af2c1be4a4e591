"""F12 on the real engine with a tiny mixture of experts, by keyboard alone at 80x24 and 40x12."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.client import Engine
from engine.generation.loading import load_model
from engine.protocol import Generate, Insight, Load, Message, Sampling
from engine.runtimes.base import CancelFlag
from engine.runtimes.native import NativeRuntime
from ktchat.common.settings import SettingsFile
from tests.support.fake_engine import FakeEngine, Reply
from tests.support.reference_routing import reference_choices, uses
from tests.support.tiny import tiny_model
from tests.tui.conftest import Running, Start

SIZES = [(80, 24), (40, 12)]
ARCHITECTURE, EXPERTS = "qwen3moe", 16


async def settled(run: Running) -> None:
    await run.until(lambda: not run.screen.activity.replying and not run.chat.busy)


def kept(run: Running) -> Insight:
    """What is kept of the open session's last reply."""
    turn, insight = run.screen.insight._kept[run.chat.conversation.id]
    assert turn == run.last.id
    return insight


def reference_uses(model: Path, message: str, tokens: int) -> np.ndarray:
    """What the float32 reference's routers choose for the reply's tokens, which the same engine says again."""
    from engine.generation.decoder import reply

    loaded = load_model(Load(str(model), threads=2), CancelFlag(), lambda event: None)
    try:
        request = Generate(1, (Message("user", message),), Sampling(temperature=0.0), tokens + 1)
        reply(loaded, request, CancelFlag(), lambda event: None)
        assert isinstance(loaded.runtime, NativeRuntime)
        sequence = list(loaded.runtime._sequence.tokens)
    finally:
        loaded.close()
    chosen = reference_choices(model, sequence)
    return uses(chosen[:, -tokens:], EXPERTS)


@pytest.mark.parametrize("size", SIZES)
async def test_the_panel_shows_which_experts_wrote_the_reply(
    size: tuple[int, int], start: Start, home: Path
) -> None:
    model = tiny_model(ARCHITECTURE, home)
    SettingsFile(home / "settings.toml").update(
        temperature=0.0, max_tokens=24, setup_done=True, lookup=False
    )
    engine = Engine()
    run = await start(size=size, engine=engine, model=str(model))  # type: ignore[arg-type]
    try:
        await run.press("f12")
        await run.sees("Inside the model", "Nothing yet")
        await run.press("f12")
        await run.misses("Inside the model")
        await run.type("hello")
        await run.press("enter")
        await run.until(lambda: run.chat.conversation.last is not None)
        await settled(run)
        figures = run.last.figures
        assert figures is not None and figures.reply_tokens == 24, "up to its limit"

        await run.press("f12")
        await run.sees("Inside the model", "tok/s over this", "a token reads")
        insight = kept(run)
        assert insight.tokens == insight.passes == 23, "the last one is not forwarded"
        assert insight.experts is not None
        counted = np.array([list(row) for row in insight.experts.rows()])
        np.testing.assert_array_equal(counted, reference_uses(model, "hello", 23))
        for _ in range(12):  # to the end of the panel, where it is longer than the screen
            await run.press("pagedown")
        await run.sees("▓ more", "never")
        await run.press("escape")
        await run.misses("Inside the model")
        assert run.app.focused is run.screen.prompt

        await run.type("again")
        await run.press("enter")
        await run.until(lambda: len(run.chat.conversation.turns) == 2)
        await settled(run)
        await run.press("shift+tab", "up", "up")  # the first reply
        await run.press("f12")
        await run.sees("is kept for")
        await run.press("f12")
        assert run.app.focused is not run.screen.prompt, "back on the message"
        await run.press("escape", "f12")
        await run.sees("tok/s over this")
    finally:
        await engine.close()


async def test_beside_the_conversation_one_types_on_and_esc_closes(start: Start) -> None:
    engine = FakeEngine([Reply("word " * 30, hold_after=9)])
    run = await start(size=(120, 30), engine=engine)
    await run.press("f12")
    await run.sees("Inside the model")
    assert engine.observed and run.app.focused is run.screen.prompt
    await run.type("hi")
    await run.press("enter")
    await run.sees("word word")
    await run.type("next")
    await run.press("escape")  # stops the reply first
    await settled(run)
    await run.sees("Inside the model")
    assert run.screen.prompt.text == "next"
    await run.press("escape")
    await run.misses("Inside the model")
    assert not engine.observed
