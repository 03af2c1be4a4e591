"""Which blocks of a file are missing, on their way, or here. For one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

MISSING, TAKEN, HERE = 0, 1, 2


class BlockMap:
    """`count` blocks, all missing but those in `here`."""

    def __init__(self, count: int, here: Iterable[int] = ()) -> None:
        self._states = bytearray(count)
        for number in here:
            self._states[number] = HERE
        self.left = self._states.count(MISSING)
        """Blocks that are not here."""
        self._changed = asyncio.Event()

    def __getitem__(self, number: int) -> int:
        return self._states[number]

    def mark(self, number: int, state: int) -> None:
        """Change a block's state and wake those who wait."""
        self.left += (self._states[number] == HERE) - (state == HERE)
        self._states[number] = state
        self._changed.set()

    def take(self, most: int) -> range | None:
        """The first missing blocks in a row, at most so many; they are on their way from now on."""
        first = self._states.find(MISSING)
        if first < 0:
            return None
        end = first
        while end < min(first + most, len(self._states)) and self._states[end] == MISSING:
            self._states[end] = TAKEN
            end += 1
        return range(first, end)

    def claim(self, number: int, mine: set[int]) -> bool:
        """Whether a block that came is wanted from the connection that fetches `mine`."""
        if number not in mine and self._states[number] == MISSING:
            self._states[number] = TAKEN
            mine.add(number)
        return number in mine and self._states[number] == TAKEN

    def release(self, mine: Iterable[int]) -> None:
        """What was on its way and did not come is missing again."""
        for number in mine:
            if self._states[number] == TAKEN:
                self.mark(number, MISSING)

    def wake(self) -> None:
        """Wake those who wait, for a reason of another kind."""
        self._changed.set()

    async def change(self) -> None:
        """Wait until something changes."""
        self._changed.clear()
        await self._changed.wait()
