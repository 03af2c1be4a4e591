"""Where the experts of a split pass were: on the device, or in the host's memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic

import numpy as np

from kernels.choices import Bools
from kernels.device import DeviceOps
from kernels.hybrid.expert_slots import ExpertSlots, Stack
from kernels.hybrid.split_experts import SplitExperts
from kernels.ops import C, Ints
from kernels.recurrent import W, X


class Places(Generic[X, W, C]):
    """`kernels.choices.Chooses` and `Places` of a split pass."""

    _device: DeviceOps[X, W, C]
    _experts: SplitExperts[X, W, C]

    def choices(self) -> Ints:
        return self._device.choices()

    def on_device(self, choices: Ints) -> Bools:
        experts = self._experts
        return on_device(choices, experts._layers.values(), experts._slots)


def on_device(
    choices: Ints,
    layers: Iterable[Sequence[Stack[Any]]],
    slots: ExpertSlots[Any, Any, Any] | None,
) -> Bools:
    """Which of a pass's choices, (layers, n, top_k), the device computed: before experts move for the next one."""
    there = np.zeros(choices.shape, dtype=np.bool_)
    for row, (stack, *_) in enumerate(layers):
        if stack.host is None:
            there[row] = True
        elif stack.adapts and slots is not None:
            there[row] = slots.of(stack)[choices[row]] >= 0
    return there
