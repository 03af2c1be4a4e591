"""How much of its float workspace a flashinfer plan takes, and splits of the positions that fit in it.

The arithmetic of flashinfer's scheduler (`PrefillPlan`), which fails in the middle of a conversation where
the workspace is too small. A tile is some rows, each a token with one of the query heads of a KV head;
every split of every tile keeps a partial result of all query heads, although a tile has but some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WORKSPACE_BYTES = 128 << 20
_ROOM = WORKSPACE_BYTES - (1 << 20)
"""What alignment cannot take."""
_TILE = 128
"""Rows of the largest tile."""


def prefill_split(
    heads: int, kv_heads: int, value: int, queries: Sequence[int], pages: int, processors: int
) -> dict[str, Any]:
    """What to tell the plan of a chunk, at most `pages` pages a sequence, so that it fits.

    Nothing where flashinfer's own choice does. Its kernels for compute capability 9.0 never split.
    """
    tiles = sum(-(-new * (heads // kv_heads) // _TILE) for new in queries)
    most = _most(kv_heads, processors)
    if most <= tiles or _bytes(heads, most, _TILE, value) <= _ROOM:
        return {}
    splits = _ROOM // _bytes(heads, tiles, _TILE, value)
    if splits < 2:
        return {"disable_split_kv": True}
    return {"fixed_split_size": -(-pages // splits)}


def _most(kv_heads: int, processors: int) -> int:
    """Tiles, each split counted, that flashinfer makes at most when it splits: two programs a processor."""
    return 2 * processors // kv_heads


def _bytes(heads: int, tiles: int, tile: int, value: int) -> int:
    """Partial values and sums of so many tiles, float32."""
    return heads * tiles * tile * (value + 1) * 4
