"""How a reply is computed, in numbers: which experts, how many bytes, what takes the time, and how fast over time."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Hop = Literal["RAM", "VRAM", "PCIe", "arithmetic"]
HOPS: tuple[Hop, ...] = ("RAM", "VRAM", "PCIe", "arithmetic")
"""What a token's time goes to: reading RAM, reading VRAM, hand-overs between CPU and GPU, and all the rest."""
NoExperts = Literal["", "dense", "untold"]
"""Why there are no counts of experts: the model has none, or what computes does not tell. Empty: there are."""

MAX_LAYERS, MAX_EXPERTS, MAX_SLICES = 512, 1024, 64
_COUNT = array("I").itemsize


@dataclass(frozen=True, slots=True)
class ExpertCounts:
    """How often each routed expert was used by the reply's tokens. Rows are the layers that have some.

    `uses` and `on_gpu` are base64 of little-endian uint32, (layers, experts); `on_gpu` is empty where no GPU takes
    part. Raises `ValueError` for sizes that do not go with each other.
    """

    first_layer: int
    layers: int
    experts: int
    top_k: int
    uses: str
    on_gpu: str = ""
    """Of the uses, those for which the expert was on a GPU."""

    def __post_init__(self) -> None:
        inside = self.first_layer >= 0 and self.layers >= 1 and 1 <= self.top_k <= self.experts
        if not inside or self.first_layer + self.layers > MAX_LAYERS or self.experts > MAX_EXPERTS:
            raise ValueError(f"counts of {self.layers} layers of {self.experts} experts")
        wanted = -(-self.layers * self.experts * _COUNT // 3) * 4
        if len(self.uses) != wanted or len(self.on_gpu) not in (0, wanted):
            raise ValueError(f"{len(self.uses)} characters of counts, not {wanted}")
        self.rows()
        self.rows_on_gpu()

    def rows(self) -> list[Sequence[int]]:
        """Uses by layer."""
        return self._rows(self.uses)

    def rows_on_gpu(self) -> list[Sequence[int]]:
        """Of these on a GPU; empty where none takes part."""
        return self._rows(self.on_gpu) if self.on_gpu else []

    def _rows(self, text: str) -> list[Sequence[int]]:
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"counts: {error}") from error
        counts = array("I", data)
        if sys.byteorder == "big":
            counts.byteswap()
        if len(counts) != self.layers * self.experts:
            raise ValueError(f"{len(counts)} counts")
        width = self.experts
        return [counts[at : at + width] for at in range(0, len(counts), width)]


@dataclass(frozen=True, slots=True)
class Insight:
    """How a reply was computed so far. Only its own tokens are counted, prompt and drafts that proved wrong are not."""

    tokens: int
    """Tokens of the reply that were forwarded: the last one is not, where the reply ends with it."""
    passes: int
    """Passes that forwarded them: fewer than tokens where drafts proved right."""
    experts: ExpertCounts | None = None
    no_experts: NoExperts = ""
    ram_bytes: int = 0
    """Bytes that a token read, by the bytes of the weights and what was counted."""
    vram_bytes: int = 0
    hop_seconds: tuple[float, ...] = ()
    """Of one token, in the order of `HOPS`: by the plan's model, the last one what is left of the measured time.
    Empty: the memory's speed is not known."""
    ram_gb_s: float = 0.0
    """What the memory can read, as it was measured; 0: not measured."""
    vram_gb_s: float = 0.0
    token_seconds: float = 0.0
    """What a token took on average, as measured, behind the first; 0: there was none."""
    slice_seconds: float = 0.0
    slices: tuple[int, ...] = ()
    """Tokens of the reply in each stretch of time of that length, from the first token on."""

    @property
    def hop(self) -> Hop | None:
        """What takes the most of a token's time; None: not known."""
        if not any(self.hop_seconds):
            return None
        return HOPS[self.hop_seconds.index(max(self.hop_seconds))]

    @property
    def hop_share(self) -> float:
        """The part of a token's time that goes to `hop`."""
        total = sum(self.hop_seconds)
        return max(self.hop_seconds) / total if total else 0.0


def encoded(counts: bytes) -> str:
    """Little-endian uint32 as `ExpertCounts` holds them."""
    return base64.b64encode(counts).decode("ascii")
