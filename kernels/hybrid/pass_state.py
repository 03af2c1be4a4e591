"""How far a pass over two op sets is: what the host still owes the device, and what may follow."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Generic

from kernels.device import ExpertRequest
from kernels.ops import Floats
from kernels.recurrent import X


class Phase(Enum):
    """The phases of a pass."""

    IDLE = "no pass has begun"
    RUNNING = "ops run, and the host owes nothing"
    COMPUTING = "the host computes experts"
    SUBMITTED = "a pass is being captured that waits for the host"
    REPLAYING = "a captured pass is being launched"
    REPLAYED = "a captured pass was launched"


_NEXT = {
    Phase.IDLE: {Phase.RUNNING},
    Phase.RUNNING: {Phase.RUNNING, Phase.COMPUTING, Phase.SUBMITTED, Phase.REPLAYING},
    Phase.COMPUTING: {Phase.RUNNING},
    Phase.SUBMITTED: {Phase.RUNNING},
    Phase.REPLAYING: {Phase.REPLAYED, Phase.IDLE},
    Phase.REPLAYED: {Phase.IDLE, Phase.RUNNING},
}
"""What may follow. A pass may begin at any time but in a launch: the one before it may have failed."""


class PassOrderError(RuntimeError):
    """A step that does not follow what was done before."""


@dataclass(frozen=True, slots=True)
class Computing(Generic[X]):
    """Experts that the host computes beside the device, to be added to a residual."""

    work: Future[Floats]
    residual: X
    request: ExpertRequest | None = None
    """Which the device adds the result from, as it will when passes are captured: so its kernels are known by then."""

    def complete(self) -> None:
        """Put the result into the request, as the host does for a captured pass."""
        if self.request is not None:
            self.request.result[:] = self.work.result()
            self.request.completed[0] = 1


@dataclass(frozen=True, slots=True)
class Submitted(Generic[X]):
    """A request that a captured pass has submitted, and the residual that its result is added to."""

    request: ExpertRequest
    residual: X

    def complete(self) -> None:
        """The host does it."""


class PassState(Generic[X]):
    """The phase of one pass after the other. Raises `PassOrderError` for a step out of order."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.owed: Computing[X] | Submitted[X] | None = None

    def begin(self) -> None:
        """A pass begins; what one that failed has left is forgotten, once the host is done with it."""
        self._enter(Phase.RUNNING)
        owed, self.owed = self.owed, None
        if isinstance(owed, Computing):
            wait([owed.work])

    def require_running(self) -> None:
        """Raise unless ops run and the host owes nothing."""
        if self.phase is not Phase.RUNNING:
            raise PassOrderError(f"a pass begins with `embed` or `set_hidden`; {self.phase.value}")

    def owe(self, owed: Computing[X] | Submitted[X]) -> None:
        """The host will have something for a residual."""
        self._enter(Phase.COMPUTING if isinstance(owed, Computing) else Phase.SUBMITTED)
        self.owed = owed

    def take(self) -> Computing[X] | Submitted[X] | None:
        """What the host owes, which is then the caller's to settle; None: nothing."""
        owed, self.owed = self.owed, None
        if owed is not None:
            self._enter(Phase.RUNNING)
        return owed

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Inside, a captured pass is launched; it is not done before `finish`."""
        self._enter(Phase.REPLAYING)
        try:
            yield
        except BaseException:
            self._enter(Phase.IDLE)
            raise
        self._enter(Phase.REPLAYED)

    def finish(self) -> bool:
        """The device has done its work: whether that was a captured pass, whose results count now."""
        if self.phase is not Phase.REPLAYED:
            return False
        self._enter(Phase.IDLE)
        return True

    def _enter(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise PassOrderError(f"{self.phase.value}: {phase.name} cannot follow")
        self.phase = phase
