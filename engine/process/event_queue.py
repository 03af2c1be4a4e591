"""The events of one command, between the child, which never waits, and their reader, who may.

Text that has not been read yet is coalesced, so that a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
from collections import deque

from engine.protocol import Event, Last, enqueue


class EventQueue:
    """The events of one command, kept until they are read; putting never waits."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._abandoned = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, event: Event) -> None:
        """Add an event; what has not been read yet is coalesced."""
        if isinstance(event, Last) and not self.ended.done():
            self.ended.set_result(None)
        if self._abandoned:
            return
        enqueue(self._events, event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Event:
        """The next event."""
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()

    def abandon(self) -> None:
        """Nobody reads any more."""
        self._abandoned = True
        self._events.clear()

    def __len__(self) -> int:
        return len(self._events)
