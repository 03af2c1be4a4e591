"""Titles by the model: in the background, and never in the way of a message."""

from __future__ import annotations

import asyncio

import pytest

from ktchat.session.titles import as_title
from tests.support.clock import soon
from tests.support.fake_engine import FakeEngine, Reply
from tests.unit.test_chat import Start, all_of, start

__all__ = ["start"]


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Of cats and dogs", "Of cats and dogs"),
        ('Title: "Of **cats**"\nmore', "Of **cats"),
        ("\n\n## Über Katzen.", "Über Katzen"),
        ("标题：关于猫", "标题：关于猫"),
        ("x\x1b]0;y\x07 cats", "x cats"),
        ("", ""),
        ("ab", ""),
        ("word " * 60, ""),
    ],
)
def test_a_title_is_made_of_what_the_model_said(said: str, title: str) -> None:
    assert as_title(said) == title


async def test_the_model_writes_the_title_after_the_first_reply(start: Start) -> None:
    chat = await start("They purr.", "Of cats", "more")
    assert not await chat.write_title()
    await all_of(chat.send("tell me of cats"))
    assert await chat.write_title()
    assert chat.conversation.title == "Of cats"
    assert isinstance(chat.engine, FakeEngine)
    asked = chat.engine.requests[-1].messages
    assert [m.role for m in asked] == ["user", "assistant", "user"] and len(
        chat.conversation.turns
    ) == 1
    await chat.saver.flush()
    assert chat.store.sessions()[0].title == "Of cats"
    assert not await chat.write_title(), "once"


async def test_a_message_goes_before_a_title(start: Start) -> None:
    chat = await start("They purr.", Reply("Of cats", hold_after=0), "second reply")
    await all_of(chat.send("tell me of cats"))
    writing = asyncio.create_task(chat.write_title())
    await soon(lambda: len(chat.engine.requests) == 2)  # type: ignore[attr-defined]
    assert not chat.busy
    await all_of(chat.send("and more"))
    assert not await writing
    assert [turn.reply for turn in chat.conversation.turns] == ["They purr.", "second reply"]
    assert chat.conversation.title == "tell me of cats"


async def test_a_title_given_meanwhile_stays(start: Start) -> None:
    chat = await start("They purr.", Reply("Of cats", hold_after=0))
    await all_of(chat.send("tell me of cats"))
    writing = asyncio.create_task(chat.write_title())
    await soon(lambda: len(chat.engine.requests) == 2)  # type: ignore[attr-defined]
    await chat.rename(chat.conversation.id, "mine")
    chat.engine.go_on()  # type: ignore[attr-defined]
    await writing
    assert chat.conversation.title == "mine"


async def test_the_end_of_the_program_does_not_wait_for_a_title(start: Start) -> None:
    chat = await start("They purr.", Reply("Of cats", hold_after=0))
    await all_of(chat.send("tell me of cats"))
    writing = asyncio.create_task(chat.write_title())
    await soon(lambda: len(chat.engine.requests) == 2)  # type: ignore[attr-defined]
    await asyncio.wait_for(chat.close(), 5)
    assert not await writing
