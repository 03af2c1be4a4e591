"""What a command of the chat screen is: for the palette, and by name behind a `/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


def nothing() -> Sequence[str]:
    """No choices."""
    return ()


@dataclass(frozen=True, slots=True)
class Command:
    """Something that can be done on the chat screen."""

    title: str
    """In the palette; empty: it is not there."""
    help: str
    """One line."""
    run: Callable[[], object]
    slash: str = ""
    """Its name behind the `/`; empty: it has none."""
    argument: str = ""
    """What may follow the name, in capitals; empty: nothing."""
    take: Callable[[str], object] | None = None
    """Does it with what follows."""
    choices: Callable[[], Sequence[str]] = nothing
    """What may follow, where that is one of a few."""
