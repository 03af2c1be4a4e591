"""The fixed shape of an attention launch: row tiles, splits of the KV positions, and their scratch memory.

Arithmetic without torch, so that a memory plan counts with the same numbers. Everything that a captured
graph depends on is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kernels.gpu.sizes import power_of_two

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

    def parts(self, tokens: int) -> int:
        """Partial results that splits leave of `tokens` tokens, to be merged; none for one split."""
        return tokens * self.heads * self.splits if self.splits > 1 else 0

    def scratch_bytes(self, tokens: int) -> int:
        """Bytes of those parts: a value and a sum each, float32."""
        return self.parts(tokens) * (self.value + 1) * 4


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
    least four bytes a thread, which is two scales. All tiles stay below the 99 KB of shared memory of a
    consumer GPU, and registers do not spill (`make check-gpu` shows both).
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
    if max(key, value) > 256:
        positions = 32 if rows == 16 or in_8_bits else 16
        warps, stages = 8, 3 if rows == 16 and in_8_bits else 2
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


def plan_latent_attention(
    sequences: int,
    queries: int,
    heads: int,
    latent: int,
    rope: int,
    max_length: int,
    processors: int,
    in_8_bits: bool = False,
) -> AttentionPlan:
    """Tiles and splits for absorbed MLA; `latent` is 512 and `rope` 64 in every known model.

    A tile of 32 rows and 32 positions takes 76 of the 99 KB of shared memory of a consumer GPU. With
    one stage it would take 102: the cached rows then lie there twice, as keys and as values. Rows in 8
    bits take as much, with a third stage.
    """
    if min(sequences, queries, heads, latent, rope, max_length, processors) < 1:
        raise ValueError(
            f"{queries} tokens of {sequences} sequences, {heads} heads of {latent}+{rope}"
        )
    rows = tile_rows(queries * heads, 32)
    plan = AttentionPlan(
        sequences=sequences,
        queries=queries,
        heads=heads,
        kv_heads=1,
        key=latent + rope,
        value=latent,
        splits=1,
        rows=rows,
        positions=32,
        warps=8,
        stages=3 if in_8_bits else 2,
    )
    return with_splits(plan, max_length, processors)


def tile_rows(rows: int, most: int) -> int:
    """A tile for so many rows: a power of two from 16, the least that tensor cores take, to `most`."""
    return min(max(16, power_of_two(rows)), most)


def with_splits(plan: AttentionPlan, max_length: int, processors: int) -> AttentionPlan:
    """The plan with enough splits for two programs on each processor."""
    blocks = plan.sequences * plan.tiles * plan.kv_heads
    useful = min(MAX_SPLITS, -(-max_length // SPLIT_POSITIONS))
    return replace(plan, splits=max(1, min(useful, -(-2 * processors // blocks))))


def feature_block(features: int) -> int:
    """Features of a tile: a power of two, at least the 16 that tensor cores take."""
    return max(16, power_of_two(features))
