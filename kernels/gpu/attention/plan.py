"""The fixed shape of an attention launch: tiles, splits and the room that splits need.

Pure arithmetic and buffers; knows no kernel. Everything a captured graph depends on is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
from torch import Tensor as X

MAX_SPLITS = 64
SPLIT_POSITIONS = 256
"""A split of fewer positions costs more to merge than it saves."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The fixed shape of one attention launch.

    Each of `sequences` sequences has at most `queries` new tokens. A program handles `rows` rows and
    steps through `positions` KV positions at a time. A latent key is counted with its rotated tail.
    """

    sequences: int
    queries: int
    heads: int
    kv_heads: int
    key: int
    value: int
    splits: int
    rows: int
    positions: int
    warps: int
    stages: int

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.heads // self.kv_heads

    @property
    def tiles(self) -> int:
        """Row tiles of one sequence and one KV head."""
        return -(-self.queries * self.group // self.rows)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.sequences * self.tiles, self.kv_heads, self.splits

    def scratch(self, tokens: int, device: torch.device | str) -> Scratch:
        """Room for the parts of `tokens` tokens, to be kept as long as the plan."""
        parts = tokens * self.heads * self.splits if self.splits > 1 else 0
        return Scratch(
            torch.empty(max(parts, 1), self.value, dtype=torch.float32, device=device),
            torch.empty(max(parts, 1), dtype=torch.float32, device=device),
        )


@dataclass(frozen=True, slots=True)
class Scratch:
    """Every split's mean value and log2-sum-exp2, by (token, head, split)."""

    parts: X
    sums: X


def plan_attention(
    sequences: int,
    queries: int,
    heads: int,
    kv_heads: int,
    key: int,
    value: int,
    max_length: int,
    processors: int,
    in_8_bits: bool = False,
) -> AttentionPlan:
    """Tiles and splits that give every one of the GPU's `processors` work at `max_length` positions.

    Tiles of 16 rows, which decoding has, wait for memory: they read ahead, which takes 5 stages where
    page numbers are read first; in 8 bits they are of 64 positions, because loads ahead of time take at
    least four bytes a thread, which is two scales. All tiles stay below the 99 KB of shared memory of a consumer GPU, and
    registers do not spill (`tests/kernels/gpu/compile_offline.py` shows both).
    """
    if (
        min(sequences, queries, kv_heads, key, value, max_length, processors) < 1
        or heads % kv_heads
    ):
        raise ValueError(f"{queries} tokens of {sequences} sequences, {heads} / {kv_heads} heads")
    wide = max(key, value) > 128
    rows = tile_rows(queries * (heads // kv_heads), 32 if wide else 64)
    positions, warps, stages = (32, 4, 5) if rows == 16 else (32, 4, 2) if wide else (64, 8, 2)
    if in_8_bits and rows == 16 and not wide:
        positions = 64
    plan = AttentionPlan(
        sequences=sequences,
        queries=queries,
        heads=heads,
        kv_heads=kv_heads,
        key=key,
        value=value,
        splits=1,
        rows=rows,
        positions=positions,
        warps=warps,
        stages=stages,
    )
    return with_splits(plan, max_length, processors)


def tile_rows(rows: int, most: int) -> int:
    """A tile for so many rows: a power of two from 16, the least that tensor cores take, to `most`."""
    return int(min(max(16, triton.next_power_of_2(rows)), most))


def with_splits(plan: AttentionPlan, max_length: int, processors: int) -> AttentionPlan:
    """The plan with enough splits for two programs on each processor."""
    blocks = plan.sequences * plan.tiles * plan.kv_heads
    useful = min(MAX_SPLITS, -(-max_length // SPLIT_POSITIONS))
    return replace(plan, splits=max(1, min(useful, -(-2 * processors // blocks))))


def feature_block(features: int) -> int:
    """Features of a tile: a power of two, at least the 16 that tensor cores take."""
    return int(max(16, triton.next_power_of_2(features)))
