"""How a transfer behaves and what it tells; shared by those who run one and those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.downloads.block_file import free_space
from engine.downloads.stage import Stage
from engine.errors import KtchatError


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How a transfer behaves; the defaults are meant for people, tests are less patient."""

    connections: int = 4
    attempts: int = 8
    """Failures in a row, without a block between them, after which a connection gives up."""
    outage_attempts: int = 8
    """The same for failures of the line itself, which passes more often than a refusal."""
    backoff: float = 0.5
    """Seconds before the second attempt; doubled each time up to `longest_wait`."""
    longest_wait: float = 30.0
    patience: float = 300.0
    """Seconds that a server may ask to wait for (Retry-After)."""
    timeout: float = 30.0
    """Seconds without a byte after which a connection counts as broken."""
    space: Callable[[Path], int] = free_space


@dataclass(slots=True)
class Meter:
    """What a transfer tells while it runs."""

    stage: Stage = Stage.STARTING
    done: int = 0
    """Bytes that are on disk."""
    received: int = 0
    """Bytes that came over the network in this run."""
    lost: int = 0
    """Bytes that had to come again because they were damaged."""
    trouble: KtchatError | None = None
    """Why it waits."""
