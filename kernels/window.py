"""Where layers that see a window of positions keep them: a ring of pages, and copies from earlier positions.

A ring forgets what it has gone round, so that it cannot be cut back to an earlier token as a KV cache of the
whole context can. As a recurrent state (`kernels.recurrent`) it is kept in slots: slot 0 is the ring.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels.sizes import PAGE_SIZE, PROMPT_CHUNK


@dataclass(frozen=True, slots=True)
class WindowPages:
    """The pages of a window of so many `positions`, the new token's included."""

    positions: int
    page_size: int = PAGE_SIZE
    chunk: int = PROMPT_CHUNK
    """Tokens of a prompt in one pass, at most."""

    @property
    def ring(self) -> int:
        """Pages that hold a prompt's chunk and all that its first token sees."""
        return -(-(self.positions + self.chunk - 1) // self.page_size)

    @property
    def copy(self) -> int:
        """Pages of one copy: what the next token sees, wherever page edges are."""
        return max(0, self.positions + self.page_size - 3) // self.page_size + 1

    def pages(self, slots: int) -> int:
        """Pages of the ring and of `slots` - 1 copies behind it."""
        return self.ring + (slots - 1) * self.copy

    def of_copy(self, slot: int, position: int) -> list[tuple[int, int]]:
        """(ring's page, copy's page) of all that the token at `position` will see, for slot 1 and above."""
        first = max(0, position - self.positions + 1) // self.page_size
        behind = self.ring + (slot - 1) * self.copy - first
        last = -(-position // self.page_size)
        return [(number % self.ring, behind + number) for number in range(first, last)]
