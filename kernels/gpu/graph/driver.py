"""Three calls of the CUDA driver that torch lacks: a stream writes a word, waits for one, or calls a host
function.

All three may be captured into a graph (batch memory operation nodes since CUDA 11.7, host nodes since 10):
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Protocol

AT_LEAST = 0
"""CU_STREAM_WAIT_VALUE_GEQ: until (int32)(word - value) >= 0."""


class DriverError(RuntimeError):
    """The driver is not there, lacks a function, or refused a call."""


class Streams(Protocol):
    """What host synchronisation asks of the driver; streams are the driver's handles, addresses bytes."""

    def write(self, stream: int, address: int, value: int) -> None:
        """Once all earlier work of the stream is done and visible: *address = value, 32 bits."""
        ...

    def wait(self, stream: int, address: int, value: int) -> None:
        """Later work of the stream begins once *address, 32 bits, is at least `value`."""
        ...

    def call(self, stream: int, function: int, argument: int) -> None:
        """In the stream's order, a thread of the driver calls function(argument); it may not call CUDA."""
        ...


_SIGNATURES: dict[str, tuple[type, ...]] = {
    "cuStreamWriteValue32_v2": (c_void_p, c_uint64, c_uint32, c_uint),
    "cuStreamWaitValue32_v2": (c_void_p, c_uint64, c_uint32, c_uint),
    "cuLaunchHostFunc": (c_void_p, c_void_p, c_void_p),
}


class Driver:
    """`Streams` of the CUDA driver."""

    def write(self, stream: int, address: int, value: int) -> None:
        _call("cuStreamWriteValue32_v2", stream, address, value, 0)

    def wait(self, stream: int, address: int, value: int) -> None:
        _call("cuStreamWaitValue32_v2", stream, address, value, AT_LEAST)

    def call(self, stream: int, function: int, argument: int) -> None:
        _call("cuLaunchHostFunc", stream, function, argument)


_: type[Streams] = Driver


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DriverError(f"the CUDA driver is not there: {error}") from None
    library.cuGetErrorString.argtypes = (c_int, ctypes.POINTER(c_char_p))
    return library


def _call(name: str, *arguments: int) -> None:
    library = _library()
    function = getattr(library, name, None)
    if function is None:
        raise DriverError(f"the CUDA driver has no {name}: it is too old")
    function.argtypes, function.restype = _SIGNATURES[name], c_int
    status = function(*arguments)
    if status:
        words = c_char_p()
        library.cuGetErrorString(status, ctypes.byref(words))
        raise DriverError(f"{name}: {(words.value or b'').decode()} ({status})")
