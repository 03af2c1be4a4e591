"""The screen under test: the real application on a scripted engine and a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from textual._context import active_app
from textual.pilot import Pilot

from ktchat.app import KtchatApp
from ktchat.common.settings import SettingsFile
from ktchat.screens.chat.chat import ChatScreen
from ktchat.session.chat import ChatSession
from ktchat.store.conversation import Turn
from ktchat.store.store import Store
from tests.support.clock import PATIENCE
from tests.support.fake_engine import FakeEngine, Reply


@dataclass
class Running:
    """One running program."""

    app: KtchatApp
    engine: FakeEngine
    pilot: Pilot[None]

    @property
    def screen(self) -> ChatScreen:
        return self.app.chat_screen

    @property
    def chat(self) -> ChatSession:
        assert self.screen.chat is not None
        return self.screen.chat

    @property
    def last(self) -> Turn:
        last = self.chat.conversation.last
        assert last is not None
        return last

    def lines(self) -> list[str]:
        """What is on the screen, row by row."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(self.lines())

    async def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"it did not come to hold; on the screen:\n{self.text()}")
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def sees(self, *words: str) -> None:
        """Wait until all these words are on the screen."""
        await self.until(lambda: all(word in self.text() for word in words))

    async def misses(self, words: str) -> None:
        """Wait until these words are not on the screen."""
        await self.until(lambda: words not in self.text())

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        """Type letters."""
        names = {" ": "space", "?": "question_mark", ".": "full_stop", ",": "comma"}
        await self.press(*(names.get(letter, letter) for letter in text))

    async def ask(self, text: str) -> Turn:
        """Send a message and wait for the end of the reply."""
        before = self.chat.conversation.last
        self.screen.prompt.put(text)
        await self.press("enter")
        await self.until(lambda: self.chat.conversation.last is not before and not self.chat.busy)
        await self.until(lambda: self.screen.transcript.last_reply() is not None)
        reply = self.screen.transcript.last_reply()
        await self.until(lambda: reply is not None and not reply.streaming)
        return self.last


class Start(Protocol):
    """Starts the program; again on the same home, it finds what was saved."""

    async def __call__(
        self,
        *script: Reply | str,
        size: tuple[int, int] = ...,
        engine: FakeEngine | None = ...,
        model: str | None = ...,
    ) -> Running: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sessions and settings of this test are kept."""
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path))
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
async def start(home: Path) -> AsyncIterator[Start]:
    hosts: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def begin(
        *script: Reply | str,
        size: tuple[int, int] = (100, 30),
        engine: FakeEngine | None = None,
        model: str | None = "/models/Fake.gguf",
    ) -> Running:
        engine = engine or FakeEngine(script)
        app = KtchatApp(
            model,
            engine=engine,
            store=Store(home / "ktchat.db"),
            settings=SettingsFile(home / "settings.toml"),
        )
        ready: asyncio.Future[Pilot[None]] = asyncio.get_running_loop().create_future()
        end = asyncio.Event()
        hosts.append((asyncio.create_task(_host(app, size, ready, end)), end))
        await asyncio.wait([ready, hosts[-1][0]], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await hosts[-1][0]  # raises what kept it from starting
        active_app.set(app)
        running = Running(app, engine, ready.result())
        await running.until(lambda: app.chat_screen.chat is not None)
        await running.until(lambda: not app.chat_screen.activity.switching)
        await running.until(lambda: not app.chat_screen.activity.loading)
        return running

    yield begin
    for _, end in reversed(hosts):
        end.set()
    for task, _ in reversed(hosts):
        await task


async def _host(
    app: KtchatApp, size: tuple[int, int], ready: asyncio.Future[Pilot[None]], end: asyncio.Event
) -> None:
    """Run the program in a task of its own, whose context it may change."""
    async with app.run_test(size=size) as pilot:
        ready.set_result(pilot)
        await end.wait()
