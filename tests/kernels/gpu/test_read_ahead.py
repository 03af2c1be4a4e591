"""What comes into the L2 cache while the host computes: matrices that follow a request, in their order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels.gpu.memory import read_ahead
from kernels.gpu.memory.read_ahead import ReadAhead
from kernels.gpu.quant.weight import PackedWeight
from kernels.quants import BY_NAME

CPU = torch.device("cpu")


def weight(rows: int) -> PackedWeight:
    return PackedWeight.empty(BY_NAME["Q8_0"], (rows, 256))


def lines(one: PackedWeight) -> int:
    return -(-one.nbytes // 128)


def sizes(parts: Any) -> list[tuple[int, int]]:
    return [(data.data_ptr(), count) for data, count in parts]


def test_what_follows_a_request_is_known_in_the_next_pass() -> None:
    ahead, weights = ReadAhead(CPU), [weight(rows) for rows in (8, 16, 24)]
    assert ahead.parts("first") is None
    for _ in range(2):  # a pass replaces what the one before noted
        ahead.note([weight(4)])  # before any request
        ahead.behind("first")
        ahead.note(weights[:2])
        ahead.behind("second")
        ahead.note(weights[2:])
        ahead.end()
        ahead.note([weight(4)])  # of no pass of one token
    assert sizes(ahead.parts("first")) == [(one.data.data_ptr(), lines(one)) for one in weights[:2]]
    assert sizes(ahead.parts("second")) == [(weights[2].data.data_ptr(), lines(weights[2]))]


def test_no_more_is_fetched_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = weight(8), weight(16), weight(8)
    room = first.nbytes + 640
    monkeypatch.setattr(read_ahead, "l2_bytes", lambda device: room / read_ahead.SHARE)
    ahead = ReadAhead(CPU)
    ahead.behind("request")
    ahead.note([first, second, third])
    assert sizes(ahead.parts("request")) == [
        (first.data.data_ptr(), lines(first)),
        (second.data.data_ptr(), room // 128 - lines(first)),
    ]
