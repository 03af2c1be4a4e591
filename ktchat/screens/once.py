"""Screens that are left once."""

from __future__ import annotations

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import Screen

T = TypeVar("T")


class LeftOnce(Screen[T]):
    """Keys that come in one burst reach a screen after it was left; Textual would then leave the one below, too."""

    _left = False

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """Leave with a result; a second time does nothing."""
        if self._left:
            return AwaitComplete()
        self._left = True
        return super().dismiss(result)
