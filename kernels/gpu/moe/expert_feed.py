"""The order in which a prompt's layers get their experts: fetched ahead into a few buffers, whoever is chosen.

Knows when what may be fetched, not how: the device's streams are its owner's. While a layer's attention is computed
nobody knows which experts its router will choose, so the likeliest come first; once the router has chosen, those that
nobody needs are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition
from typing import Any, Generic, TypeVar

B = TypeVar("B")
"""A buffer."""

Run = Callable[[Callable[[], None]], Any]
"""Does a job: at once, or in a thread that does one after another."""


@dataclass(frozen=True, slots=True)
class FeedLayer:
    """A layer of a feed: the experts that are not on the device, the likeliest first, and how many a buffer holds."""

    experts: Sequence[int]
    at_once: int


@dataclass(frozen=True, slots=True)
class Part(Generic[B]):
    """Experts of one layer in the order in which they lie in a buffer, and the mark behind their copies."""

    layer: int
    experts: tuple[int, ...]
    buffer: B
    filled: Any


class ExpertFeed(Generic[B]):
    """Fills free buffers, layer after layer, until they are all taken; one thread takes and releases them.

    `fill(layer, experts, buffer)` asks for the copies and returns the mark behind them.
    """

    def __init__(
        self,
        layers: Sequence[FeedLayer],
        buffers: Sequence[B],
        fill: Callable[[int, tuple[int, ...], B], Any],
        run: Run,
    ) -> None:
        self._layers, self._fill, self._run = layers, fill, run
        self._free = deque(buffers)
        self._ready: deque[Part[B]] = deque()
        self._used: dict[int, frozenset[int]] = {}
        self._left = [deque(layer.experts) for layer in layers]
        self._failed: BaseException | None = None
        self._filling: int | None = None
        self._changed = Condition()

    def start(self) -> None:
        """Begin to fetch."""
        self._run(self._advance)

    def stop(self) -> None:
        """Fetch no more."""
        with self._changed:
            for left in self._left:
                left.clear()

    def parts(self, layer: int, used: frozenset[int]) -> Iterator[Part[B]]:
        """A layer's, which needs the experts `used`, as they come; layers are asked for in their order.

        The buffer of each is released when the next is asked for, behind what was asked of the device until then.
        Raises what went wrong in a copy.
        """
        with self._changed:
            self._used[layer] = used
            for earlier in self._left[:layer]:
                earlier.clear()
        while (part := self._take(layer)) is not None:
            if part.layer == layer:
                yield part
            with self._changed:
                self._free.append(part.buffer)
            self._run(self._advance)

    def _take(self, layer: int) -> Part[B] | None:
        """The next part up to `layer`'s; None: it has no more."""
        with self._changed:
            if not self._ready and self._filling is None:
                self._run(self._advance)
            self._changed.wait_for(lambda: self._failed or self._ready or self._ended(layer))
            if self._failed is not None:
                raise self._failed
            if not self._ready or self._ready[0].layer > layer:
                return None
            return self._ready.popleft()

    def _ended(self, layer: int) -> bool:
        filling = self._filling is not None and self._filling <= layer
        return not filling and not any(map(self._wanted, range(layer + 1)))

    def _wanted(self, layer: int) -> bool:
        """Whether experts of a layer are left to be fetched; drops those that nobody chose."""
        left, used = self._left[layer], self._used.get(layer)
        while left and used is not None and left[0] not in used:
            left.popleft()
        return bool(left)

    def _advance(self) -> None:
        while (job := self._next()) is not None:
            layer, experts, buffer = job
            try:
                part = Part(layer, experts, buffer, self._fill(layer, experts, buffer))
            except BaseException as error:  # whoever takes raises it
                with self._changed:
                    self._failed, self._filling = error, None
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready.append(part)
                self._filling = None
                self._changed.notify_all()

    def _next(self) -> tuple[int, tuple[int, ...], B] | None:
        """What is to be fetched next, and a buffer for it."""
        with self._changed:
            layer = next((n for n in range(len(self._left)) if self._wanted(n)), None)
            if layer is None or not self._free or self._failed is not None:
                self._changed.notify_all()
                return None
            experts: list[int] = []
            while len(experts) < self._layers[layer].at_once and self._wanted(layer):
                experts.append(self._left[layer].popleft())
            self._filling = layer
            return layer, tuple(experts), self._free.popleft()
