"""Planes of device memory as bytes on the host, and back: after what was asked of the device before, and waited for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor as X

from kernels.host_bytes import joined, split
from kernels.ops import Bytes


def read_planes(planes: Sequence[X]) -> Bytes:
    """The bytes of all planes, one after another."""
    return joined([plane.cpu().numpy() for plane in planes])


def write_planes(planes: Sequence[X], data: Bytes) -> None:
    """Put bytes that `read_planes` gave into planes of the same shapes. Raises `ValueError` for another number."""
    hosts = [torch.empty(plane.shape, dtype=plane.dtype) for plane in planes]
    split([host.numpy() for host in hosts], data)
    for plane, host in zip(planes, hosts, strict=True):
        plane.copy_(host)
