"""Saving in the background: soon, in order, and nothing is forgotten when the disk refuses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ktchat.attachments.attachment import Draft
from ktchat.common.errors import StoreError
from ktchat.store import saver as saving
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.saver import STEP_SECONDS, STEP_TOKENS, Saver
from ktchat.store.store import Store
from tests.support.clock import PATIENCE, assert_within


class Place:
    """A store whose disk can be made to refuse, and what the person was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "data" / "ktchat.db")
        self.told: list[tuple[str, str]] = []
        self.saver = Saver(self.store, lambda words, severity: self.told.append((severity, words)))
        self.conversation = Conversation(title="t", turns=[Turn("one")])

    def refuse(self) -> None:
        self.store.database.path = Path("/proc/nowhere/ktchat.db")
        self.store.database.close()

    def accept(self) -> None:
        self.store.database.path = self.folder / "data" / "ktchat.db"

    def touch(self, text: str = "", tokens: int = 0) -> None:
        turn = self.conversation.turns[0]
        turn.raw_reply += text
        self.saver.touch(self.conversation, turn, tokens=tokens)

    def saved(self) -> str:
        """The reply as another program sees it."""
        other = Store(self.folder / "data" / "ktchat.db")
        with contextlib.closing(other):
            return other.load(self.conversation.id).turns[0].raw_reply


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.saver.close()
    place.store.close()


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait for a condition; the seconds that it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not condition():
        assert loop.time() - start < seconds, "it did not come"
        await asyncio.sleep(0.005)
    return loop.time() - start


@pytest.mark.xdist_group("clock")
async def test_a_change_is_written_by_itself_and_soon(place: Place) -> None:
    place.touch("first")
    assert_within(await until(lambda: not place.saver.pending), STEP_SECONDS)
    assert place.saved() == "first"
    place.touch(" second")
    assert_within(await until(lambda: not place.saver.pending), STEP_SECONDS + 0.1)
    assert place.saved() == "first second"


@pytest.mark.xdist_group("clock")
async def test_a_stream_is_written_in_steps_and_not_at_every_token(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0
    save = place.store.save

    def counted(*args: object) -> None:
        nonlocal saves
        saves += 1
        save(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(place.store, "save", counted)
    begun = time.monotonic()
    for _ in range(100):
        place.touch("x", tokens=1 if _ < STEP_TOKENS - 1 else 0)
        await asyncio.sleep(0.01)
    await place.saver.flush()
    took = time.monotonic() - begun
    assert saves <= 7 + took / STEP_SECONDS  # in a second: 12
    assert_within(took / STEP_SECONDS / saves, 1.3)
    assert place.saved() == "x" * 100


@pytest.mark.xdist_group("clock")
async def test_many_tokens_are_written_at_once(place: Place) -> None:
    place.touch("a")
    await place.saver.flush()
    place.touch("b", tokens=STEP_TOKENS)
    assert_within(await until(lambda: not place.saver.pending), STEP_SECONDS / 2)


async def test_a_refusing_disk_is_told_once_and_everything_is_written_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "RETRY_SECONDS", 0.05)
    place.refuse()
    for n in range(4):
        place.touch(str(n))
        assert not await place.saver.flush()
        await asyncio.sleep(0.06)
    assert [severity for severity, _ in place.told] == ["error"]
    assert "The chat goes on in memory" in place.told[0][1]
    assert place.saver.pending and isinstance(place.saver.error, StoreError)
    place.saver.keep_draft("d" * 32, Draft("unsent"))
    place.accept()
    await until(lambda: not place.saver.pending)
    assert place.saved() == "0123"
    assert place.store.draft("d" * 32).text == "unsent"
    assert [severity for severity, _ in place.told] == ["error", "information"]
    assert place.saver.error is None


async def test_a_second_outage_is_told_again(place: Place) -> None:
    for _ in range(2):
        place.refuse()
        place.touch("x")
        await place.saver.flush()
        place.accept()
        await place.saver.flush()
    assert [severity for severity, _ in place.told] == ["error", "information"] * 2


async def test_what_changes_during_a_failing_attempt_is_not_lost(place: Place) -> None:
    place.touch("a")
    place.refuse()
    attempt = asyncio.create_task(place.saver.flush())
    await asyncio.sleep(0)
    place.touch("b")
    other = Conversation(title="other", turns=[Turn("two")])
    place.saver.touch(other, *other.turns)
    assert not await attempt
    place.accept()
    assert await place.saver.flush()
    assert place.saved() == "ab"
    assert place.store.load(other.id).turns[0].raw_prompt == "two"


async def test_a_fault_of_our_own_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise OverflowError

    place.touch("a")
    with monkeypatch.context() as patch:
        patch.setattr(place.store, "save", broken)
        assert not await place.saver.flush()
    assert await place.saver.flush()
    assert place.saved() == "a" and "OverflowError" in place.told[0][1]


async def test_a_write_outlives_the_task_that_asked_for_it(place: Place) -> None:
    place.touch("a")
    asking = asyncio.create_task(place.saver.flush())
    await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert await place.saver.flush()
    assert place.saved() == "a"


async def test_a_disk_that_hangs_does_not_hold_up_the_chat(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "FLUSH_SECONDS", 0.05)
    place.store.database.lock.acquire()
    place.touch("a")
    try:
        assert not await place.saver.flush()
    finally:
        place.store.database.lock.release()
    await until(lambda: not place.saver.pending and not place.saver._saves)
    assert place.saved() == "a"


async def test_a_repair_is_told(place: Place) -> None:
    place.store.path.parent.mkdir()
    place.store.path.write_bytes(b"junk" * 5000)
    place.touch("a")
    await place.saver.flush()
    assert place.told[0][0] == "warning" and "damaged" in place.told[0][1]
    assert place.saved() == "a"


async def test_a_draft_is_written_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "DRAFT_SECONDS", 0.05)
    place.saver.keep_draft("d" * 32, Draft("half a tho"))
    await until(lambda: not place.saver.pending)
    assert place.store.draft("d" * 32).text == "half a tho"


async def test_closing_writes_what_is_left(place: Place) -> None:
    place.touch("last words")
    await place.saver.close()
    assert place.saved() == "last words"
    place.touch("too late")
    await asyncio.sleep(STEP_SECONDS + 0.05)
    assert place.saved() == "last words"
