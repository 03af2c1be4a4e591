"""The bars of compiled kernels, and the table of what they take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]

SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KB of shared memory that a program may take, by compute capability (CUDA programming guide)."""
STACK = 64
"""Bytes of stack a thread: sine and cosine of large angles take 32; more than 64 is spilt registers."""
PER_32_WEIGHTS, IN_FLOAT = 70, 520
"""Instructions of a vector product's loop for 32 weights: with activations in 8 bits, and in float32."""
ROW_BYTES = 128
"""Contiguous bytes of a row that a warp reads with one load, with activations in 8 bits."""
MORE = {
    ("Q3_K", "down_add"): 80,
    **{("TQ1_0", name): 1200 for name in ("gemv", "swiglu", "down_add")},
    **{(f"IQ{n}_KT", name): 700 for n in (1, 2, 3, 4) for name in ("gemv", "swiglu", "down_add")},
    **{(f"IQ{name}", "down_add"): 560 for name in ("3_K", "5_K", "3_KS")},
}
"""Q3_K: five loads a block, each of them with an address of its own for each expert, 12 of its 78. TQ1_0: five numbers
to a byte, digits to the base of three. IQ*_KT: a number is four bytes' sum of a product that follows the one before
(the trellis). IQ3_K, IQ5_K, IQ3_KS: bits of a number in two words, and a bit that says which of two tables."""


def broken(row: Row) -> Iterator[str]:
    """The bars that a kernel misses on one target, in words."""
    allowed = SHARED[row["arch"]]
    if row["shared"] > allowed << 10:
        yield f"{row['shared'] / 1024:.0f} KB of shared memory, {allowed} allowed"
    if row["stack"] > STACK:
        yield f"{row['stack']} bytes of stack, {STACK} allowed"
    if row.get("in_8_bits") and (row.get("row_bytes") or 0) < ROW_BYTES:
        yield f"{row['row_bytes']} contiguous bytes of a row, {ROW_BYTES} asked for"
    if row.get("loop_barriers"):
        yield f"{row['loop_barriers']} barriers in the loop of a vector product"
    most = PER_32_WEIGHTS if row.get("in_8_bits") else IN_FLOAT
    most = MORE.get((row.get("type"), row.get("kernel")), most)
    most *= 1 if "8 rows" not in row["case"] else 8
    if row.get("per_32_weights", 0) > most:
        yield f"{row['per_32_weights']} instructions for 32 weights, {most} allowed"


def table(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each version, case and target: the worst of all types, and whose it is."""
    groups: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        key = row["version"], row["kernel"], row["case"], row["arch"]
        groups.setdefault(key, []).append(row)
    head = "triton kernel case target registers stack shared_KB per_32_weights row_bytes"
    yield _line(head.split())
    for (version, kernel, case, arch), found in sorted(groups.items()):
        cells = [version, kernel, case, f"sm_{arch}"]
        cells += [_most(found, name) for name in ("registers", "stack")]
        cells.append(_most(found, "shared", 1024))
        cells += [_most(found, "per_32_weights"), _least(found, "row_bytes")]
        yield _line(cells)


def _line(cells: list[str]) -> str:
    widths = (6, 20, 26, 7, 13, 13, 13, 15, 13)
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _most(rows: list[Row], name: str, unit: int = 1) -> str:
    having = [row for row in rows if row.get(name) is not None]
    return _with_type(max(having, key=lambda row: row[name]), name, unit) if having else "-"


def _least(rows: list[Row], name: str) -> str:
    having = [row for row in rows if row.get(name) is not None]
    return _with_type(min(having, key=lambda row: row[name]), name) if having else "-"


def _with_type(row: Row, name: str, unit: int = 1) -> str:
    return f"{row[name] / unit:.0f} {row['type']}".strip() if row[name] else "0"
