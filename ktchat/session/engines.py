"""The engine of a running program: models on this machine and models on servers behind one API.

Which of the two is at work follows from the path of the model that was loaded last: an address is a server's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from engine.errors import RequestError
from engine.protocol import (
    Begun,
    Counted,
    Event,
    Failed,
    Load,
    Loaded,
    Message,
    Sampling,
    Think,
)
from engine.remote.address import is_address
from ktchat.session.reply import Engine

if TYPE_CHECKING:
    from ktchat.library.servers import Servers

WRITE_SECONDS = 1.0
"""What an engine that gives way has to write what it read to the disk."""


class EitherEngine:
    """Hands everything on to the engine of the model that is loaded.

    The other one is made when a model of its kind is wanted, and closed when it has lost: a server that cannot
    be reached leaves the local model where it is.
    """

    def __init__(self, local: Callable[[], Engine], remote: Callable[[], Engine]) -> None:
        self._make = {False: local, True: remote}
        self._remote = False
        self._engine: Engine | None = None
        self._coming: Engine | None = None
        self._closed = self._observing = False

    @property
    def loaded(self) -> Loaded | None:
        """The model that answers."""
        return self._engine.loaded if self._engine is not None else None

    async def load(self, command: Load) -> AsyncGenerator[Event, None]:
        """Load a model in place of the one that is loaded: Progress, Notice, then Loaded or Failed."""
        remote = is_address(command.path)
        if self._engine is not None and remote == self._remote:
            async for event in _closing(self._engine.load(command)):
                yield event
            return
        coming = self._coming = self._make[remote]()
        arrived = False
        try:
            async for event in _closing(coming.load(command)):
                if isinstance(event, Loaded) and not self._closed:
                    arrived = True
                    left, self._engine, self._remote = self._engine, coming, remote
                    self._coming = None
                    coming.observe(self._observing)
                    if left is not None:
                        await left.close(WRITE_SECONDS)
                yield event
        finally:
            if not arrived:
                self._coming = None
                await coming.close()

    async def generate(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        max_tokens: int | None,
        think: Think | None,
        session: str | None,
        begun: Begun | None = None,
        *,
        watch: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Answer a conversation with the model that is loaded."""
        if self._engine is None:
            yield Failed(RequestError("No model is loaded", "", "Open a model first"))
            return
        how = messages, sampling, max_tokens, think, session, begun
        async for event in _closing(self._engine.generate(*how, watch=watch)):
            yield event

    async def count(
        self, messages: Sequence[Message], think: Think | None = None
    ) -> Counted | None:
        """A conversation's tokens; None: they cannot be counted."""
        return None if self._engine is None else await self._engine.count(messages, think)

    def answer_now(self) -> None:
        """End the thinking of the reply that is being written, where the engine can."""
        if self._engine is not None:
            self._engine.answer_now()

    def observe(self, on: bool) -> None:
        """Have `Insight` sent while a reply is written, where the engine can."""
        self._observing = on
        if self._engine is not None:
            self._engine.observe(on)

    def cancel(self) -> None:
        """Stop what is running, if anything."""
        for engine in (self._coming, self._engine):
            if engine is not None:
                engine.cancel()

    async def close(self, seconds: float = 0.0) -> None:
        """Free everything; for so many seconds what was read may be written to the disk."""
        self._closed = True
        for engine in (self._coming, self._engine):
            if engine is not None:
                await engine.close(seconds)


def either_engine(servers: Servers) -> Engine:
    """The engine of this program."""

    def local() -> Engine:
        from engine.client import Engine as ChildEngine

        return ChildEngine()

    def remote() -> Engine:
        from engine.remote.engine import RemoteEngine

        return RemoteEngine(servers.access)

    return EitherEngine(local, remote)


async def _closing(stream: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """The events; whoever leaves early ends the stream at once."""
    try:
        async for event in stream:
            yield event
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
