"""The native library's functions, read from src/ops.inc.h: the table that C++ is compiled with."""

from __future__ import annotations

import re
from ctypes import c_float, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "src" / "ops.inc.h"

_TYPES: dict[str, type | None] = {
    "p": c_void_p,
    "n": c_int64,
    "i": c_int,
    "z": c_size_t,
    "f": c_float,
    "v": None,
}
_EXPANDED = {"s": "pnpnnn", "w": "ppp", "r": "pn"}
_LINE = re.compile(r'^(OP|FUNCTION)\((\w+), (?:"(\w)", )?"(\w*)"\)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Function:
    """One line of the table. `kinds` are those of its arguments; an op's come after the context."""

    name: str
    op: bool
    result: str
    kinds: str

    @property
    def symbol(self) -> str:
        """Its name in the library."""
        return f"kt_{self.name}"

    @property
    def expanded(self) -> str:
        """One kind an argument."""
        return "".join(_EXPANDED.get(kind, kind) for kind in self.kinds)

    @property
    def argtypes(self) -> list[type | None]:
        """For ctypes."""
        return [_TYPES[kind] for kind in ("p" * self.op) + self.expanded]

    @property
    def restype(self) -> type | None:
        """For ctypes."""
        return _TYPES[self.result]

    @property
    def integers(self) -> int:
        """Arguments that are no float."""
        return len(self.expanded.replace("f", ""))

    @property
    def kv_slots(self) -> int | None:
        """Where the cache stands among the arguments that are no float; layer, pages, page count, start
        and n follow it. None: it has none."""
        return self._place("s")

    @property
    def layer(self) -> int | None:
        """Where the layer stands among the arguments that are no float; None: it has none."""
        state = self.kv_slots if self.kv_slots is not None else self._place("r")
        return None if state is None else state + 1

    def _place(self, kind: str) -> int | None:
        before, found, _ = self.kinds.partition(kind)
        return Function("", False, "v", before).integers if found else None


def read(text: str) -> dict[str, Function]:
    """The functions of a table by their symbols, ops first and in the order of their numbers."""
    lines = [
        Function(name, line == "OP", result or "i", kinds)
        for line, name, result, kinds in _LINE.findall(text)
    ]
    return {line.symbol: line for line in sorted(lines, key=lambda line: not line.op)}


FUNCTIONS = read(SOURCE.read_text(encoding="utf-8"))
OPS = {symbol: line for symbol, line in FUNCTIONS.items() if line.op}
NUMBERS = {symbol: number for number, symbol in enumerate(OPS)}
"""What `Command::op` in src/op_table.h is."""
MOST_ARGUMENTS = max(len(line.expanded) for line in OPS.values())
"""The size of `Command::a`."""
MAX_WEIGHTS = OPS["kt_norm_linear"].kinds.count("w")
"""Products that one call of kt_norm_linear takes."""
