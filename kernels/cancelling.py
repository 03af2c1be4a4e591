"""Giving up a long op in its middle, when another thread wishes it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class CancelledError(Exception):
    """The work was given up because its flag was raised."""


class Flag(Protocol):
    """What one thread raises to make another give up. `address`: of a byte that is 0 while it is lowered."""

    address: int

    def __bool__(self) -> bool:
        """Whether it is raised."""
        ...


@runtime_checkable
class Heeds(Protocol):
    """An op set whose ops can be given up."""

    def heed(self, flag: Flag | None) -> None:
        """From now on ops raise `CancelledError` soon after `flag` is raised, and what they wrote is worthless;
        None: they do not look any more. A flag that was raised stays so until this is called again."""
        ...
