"""The states of a download."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """The states of a download; the first six are active."""

    QUEUED = "queued"
    STARTING = "starting"
    DOWNLOADING = "downloading"
    WAITING = "waiting"
    """For the network or the server."""
    CHECKING = "checking"
    REPAIRING = "repairing"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_active(self) -> bool:
        """Whether it runs or waits for its turn."""
        return self not in (Stage.PAUSED, Stage.DONE, Stage.FAILED, Stage.CANCELLED)
