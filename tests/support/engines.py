"""Helpers of the engine's tests: engines on scripted children, and what they answered."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from engine.client import Engine
from engine.protocol import Event, Load, Message, Text


def worker(mode: str = "scripted") -> tuple[str, ...]:
    """The command of a child that follows a script."""
    return (sys.executable, "-P", "-m", "tests.support.fake_worker", mode)


@asynccontextmanager
async def scripted(path: str = "fake", mode: str = "scripted") -> AsyncIterator[Engine]:
    """An engine with a scripted model loaded, closed at the end."""
    engine = Engine(worker(mode))
    try:
        if path:
            await collect(engine.load(Load(path)))
        yield engine
    finally:
        await engine.close()


async def collect(
    events: AsyncIterator[Event], then: Callable[[Event], object] = lambda event: None
) -> list[Event]:
    """All events; `then` is called with each."""
    seen = []
    async with aclosing(events):
        async for event in events:
            seen.append(event)
            then(event)
    return seen


def ask(engine: Engine, text: str, **options: object) -> AsyncIterator[Event]:
    """A request of one message."""
    return engine.generate([Message("user", text)], **options)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue
    return found
