"""Layers with a recurrent state in place of a KV cache: their sizes, their state, and the ops they add.

A state cannot be cut back to an earlier token as a KV cache can. It is kept in slots: slot 0 is the state
of the current sequence, the others hold copies from earlier positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from kernels.parameters import Bytes

X = TypeVar("X")
"""A buffer of float32 activations."""
W = TypeVar("W")
"""Weights made ready by `matrix` or `vector`."""

MAX_KERNEL = 4
"""The longest convolution that every op set computes."""

State = Any
"""An op set's recurrent state, made by `recurrent_state`."""


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """A gated delta net (Yang, Kautz and Hatamizadeh, 2024, arXiv:2412.06464). Sizes in features."""

    key_heads: int
    value_heads: int
    key: int
    """Of a query or key head."""
    value: int
    """Of a value head."""
    kernel: int
    """Tokens that the short convolution sees, the new one included."""
    tiled: bool
    """Value head h reads key head h % key_heads; else h * key_heads // value_heads."""

    def __post_init__(self) -> None:
        uneven = self.key_heads < 1 or self.value_heads < 1 or self.value_heads % self.key_heads
        if uneven or not 1 <= self.kernel <= MAX_KERNEL:
            raise ValueError(f"no op computes {self}")

    @property
    def conv_features(self) -> int:
        """What goes through the convolution: all queries, all keys, all values."""
        return 2 * self.key_heads * self.key + self.value_heads * self.value

    @property
    def values(self) -> int:
        """Features of all value heads."""
        return self.value_heads * self.value

    @property
    def state_floats(self) -> int:
        """Numbers in one layer's state: the convolution's last tokens, and a matrix for each value head."""
        conv = (self.kernel - 1) * self.conv_features
        return conv + self.value_heads * self.key * self.value


@dataclass(frozen=True, slots=True)
class StateShape:
    """The recurrent states of `layers` layers in `slots` slots, float32."""

    layers: int
    slots: int
    net: DeltaNet

    @property
    def bytes_per_slot(self) -> int:
        """Bytes of one slot over all layers."""
        return 4 * self.layers * self.net.state_floats


class DeltaNetWeights(NamedTuple, Generic[W]):
    """A layer's vectors."""

    conv: W
    """(conv_features * kernel,): each feature's taps, the oldest token's first."""
    a: W
    """(value_heads,), negative: the decay is exp(a * softplus(alpha + dt))."""
    dt: W
    """(value_heads,)"""
    norm: W
    """(value,), of each value head's output."""


class RecurrentOps(Protocol[X, W]):
    """The part of an op set that serves recurrent layers."""

    def recurrent_state(self, shape: StateShape) -> State:
        """States of zeros."""
        ...

    def clear_state(self, state: State) -> None:
        """Slot 0 becomes zeros in every layer: the start of a sequence. In the order of calls, as `copy_state`."""
        ...

    def copy_state(self, state: State, source: int, target: int) -> None:
        """Copy a slot in every layer."""
        ...

    def read_state(self, state: State, slot: int) -> Bytes:
        """A slot of every layer as bytes on the host, in a layout of the op set's own."""
        ...

    def write_state(self, state: State, slot: int, data: Bytes) -> None:
        """Put back what `read_state` gave of states of this shape. Raises `ValueError` for other sizes."""
        ...

    def delta_net(
        self,
        qkv: X,
        z: X,
        alpha: X,
        beta: X,
        weights: DeltaNetWeights[W],
        eps: float,
        net: DeltaNet,
        state: State,
        layer: int,
    ) -> X:
        """A gated delta net over new tokens, from slot 0 of the state, which is advanced: (n, values).

        It is advanced once for each time that a pass is asked for, whatever recording one repeats.

        qkv (n, conv_features) holds the queries, keys and values of each token, z (n, values), alpha and
        beta (n, value_heads). Per token:

        1. Causal convolution of each feature of qkv over the last `kernel` tokens, then SiLU.
        2. q and k of each key head divided by sqrt(sum of squares + eps); q also by sqrt(key).
        3. Per value head, S (key, value): S *= exp(a * softplus(alpha + dt)); then
           S += outer(k, sigmoid(beta) * (v - k @ S)); o = q @ S.
        4. RMSNorm of o per head with `norm`, times SiLU(z).
        """
        ...

    def sigmoid_gate(self, x: X, gate: X) -> None:
        """x *= sigmoid(gate), element by element."""
        ...
