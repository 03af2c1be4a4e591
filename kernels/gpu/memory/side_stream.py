"""A CUDA stream beside the current one, and marks that order the two.

On the CPU, where work is done in the order of the calls, there is none, and all marks are reached.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch


class Mark(Protocol):
    """A place in a stream's work."""

    def query(self) -> bool:
        """Whether the device has come as far."""
        ...

    def synchronize(self) -> None:
        """Wait until it has."""
        ...


class Reached:
    """A mark that the device has passed."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        return


class SideStream:
    """Work that a device does beside its current stream's. Any thread may give it work, one at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def active(self) -> AbstractContextManager[object]:
        """Inside, this stream is the thread's current one, and its device the current device."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def mark(self) -> Mark:
        """Here, in this stream. Who waits for it sleeps."""
        if self._stream is None:
            return Reached()
        event = torch.cuda.Event(blocking=True)
        event.record(self._stream)
        return event

    def current_mark(self) -> Mark:
        """Here, in the device's current stream of this thread."""
        if self._stream is None:
            return Reached()
        event: Mark = torch.cuda.current_stream(self._device).record_event()
        return event

    def after(self, mark: Mark) -> None:
        """What this stream is given from now on is done once the mark is reached."""
        if self._stream is not None:
            assert isinstance(mark, torch.cuda.Event)
            self._stream.wait_event(mark)

    def current_after(self, mark: Mark) -> None:
        """What the device's current stream is given from now on is done once the mark is reached."""
        if self._stream is not None:
            assert isinstance(mark, torch.cuda.Event)
            torch.cuda.current_stream(self._device).wait_event(mark)

    def before_current(self) -> None:
        """What the current stream is given from now on is done after all that this one has now."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
