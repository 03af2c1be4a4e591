"""An op set's device memory: counted as it is allocated, with a clear error where there is none."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor as Buffer

from kernels.device import DeviceMemory, DeviceMemoryError


class TrackedAllocator:
    """The memory of a device as one op set sees it. Any thread may use it.

    With `limit` the device has so many bytes for this op set, less what it holds: so tests simulate any
    card on the CPU, and a smaller one on a GPU. Without, the CPU has the machine's memory.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        self.device, self.limit = device, limit
        self._live: dict[int, int] = {}
        self._numbers = count()

    @property
    def held(self) -> int:
        """Bytes of the tensors kept so far that still exist."""
        return sum(self._live.copy().values())

    def memory(self) -> DeviceMemory:
        """Free and total bytes, as `kernels.device.DeviceOps` says."""
        if self.limit is None:
            return _real(self.device)
        left = max(0, self.limit - self.held)
        if self.device.type != "cuda":
            return DeviceMemory(left, self.limit)
        memory = _real(self.device)
        return DeviceMemory(min(memory.free, left), min(memory.total, self.limit))

    def keep(self, *tensors: Buffer) -> None:
        """Count tensors for as long as they exist."""
        for tensor in tensors:
            number = next(self._numbers)
            self._live[number] = tensor.nbytes
            weakref.finalize(tensor, self._live.pop, number).atexit = False

    @contextmanager
    def room(self, wanted: int) -> Iterator[None]:
        """Inside, `wanted` bytes are allocated. Raises `DeviceMemoryError` when there is no room for them."""
        if self.limit is not None and self.held + wanted > self.limit:
            raise self._refusal(wanted)
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise self._refusal(wanted) from error

    def empty(self, size: int) -> Buffer:
        """So many bytes, (size,) uint8, counted. Raises `DeviceMemoryError` when there is no room."""
        with self.room(size):
            buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        self.keep(buffer)
        return buffer

    def _refusal(self, wanted: int) -> DeviceMemoryError:
        free = self.memory().free
        return DeviceMemoryError(f"{wanted:,} bytes wanted on {self.device}, {free:,} are free")


def _real(device: torch.device) -> DeviceMemory:
    if device.type == "cuda":
        # torch's cache is not emptied for this: it is what passes have taken, and they will take it again.
        return DeviceMemory(*torch.cuda.mem_get_info(device))
    page = os.sysconf("SC_PAGE_SIZE")
    return DeviceMemory(os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page)
