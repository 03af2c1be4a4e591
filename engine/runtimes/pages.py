"""Bookkeeping of KV pages: which are free, and how many sequences hold each.

These are page numbers; the cache itself belongs to the op set.
"""

from __future__ import annotations


class PagePool:
    """`count` pages, each held by zero or more sequences."""

    def __init__(self, count: int) -> None:
        self._holders = [0] * count
        self._free = list(range(count - 1, -1, -1))

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def take(self) -> int | None:
        """A page for one new holder, or None when all are held."""
        if not self._free:
            return None
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more holder of a held page."""
        assert self._holders[page] > 0, f"page {page} is free"
        self._holders[page] += 1

    def release(self, page: int) -> None:
        """One holder less; the last one frees the page."""
        assert self._holders[page] > 0, f"page {page} is free"
        self._holders[page] -= 1
        if not self._holders[page]:
            self._free.append(page)
