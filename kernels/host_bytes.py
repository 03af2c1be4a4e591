"""Arrays as the bytes that an op set's `read_page` and `read_state` give, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.parameters import Bytes


def joined(arrays: Sequence[npt.NDArray[Any]]) -> Bytes:
    """The bytes of all arrays, one after another: a copy."""
    out = np.empty(sum(array.nbytes for array in arrays), np.uint8)
    split_into = _parts(arrays, out)
    for array, part in zip(arrays, split_into, strict=True):
        part.view(array.dtype).reshape(array.shape)[...] = array
    return out


def split(arrays: Sequence[npt.NDArray[Any]], data: Bytes) -> None:
    """Put bytes that `joined` gave into arrays of the same shapes. Raises `ValueError` for another number."""
    for array, part in zip(arrays, _parts(arrays, data), strict=True):
        array[...] = part.view(array.dtype).reshape(array.shape)


def _parts(arrays: Sequence[npt.NDArray[Any]], data: Bytes) -> list[Bytes]:
    ends = np.cumsum([array.nbytes for array in arrays]).tolist()
    if data.dtype != np.uint8 or data.shape != (ends[-1],):
        raise ValueError(f"{ends[-1]} bytes expected, got {data.dtype} {data.shape}")
    return np.split(data, ends[:-1])
