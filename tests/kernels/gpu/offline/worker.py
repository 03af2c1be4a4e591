"""Compiles units and writes what they take: a line of JSON for each line of its input.

`python -m tests.kernels.gpu.offline.worker [RESULTS]`, without TRITON_INTERPRET. A line is a unit, or "same:
CASE", whose targets are compared. RESULTS has the lines of earlier runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kernels.gpu.offline import machine_code
from tests.kernels.gpu.offline.targets import LOOPS_OF, Binary, binaries, differences
from tests.kernels.gpu.offline.units import SAME, key, launch, split

Result = dict[str, Any]


def main(results: Path | None) -> None:
    """Until the input ends."""
    known = dict(_read(results)) if results is not None else {}
    for line in sys.stdin:
        unit = line.strip()
        begin = sum(os.times()[:4])
        result = {"cpu_s": 0.0} | _result(unit, known)
        if "cached" not in result:  # the assembler's processes counted in
            result["cpu_s"] = round(sum(os.times()[:4]) - begin, 2)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


def _result(unit: str, known: dict[tuple[str, str], Result]) -> Result:
    case, archs = split(unit.removeprefix(SAME))
    try:
        of = key(case)
        if (unit, of) in known:
            return known[unit, of] | {"cached": True}
        if unit.startswith(SAME):
            return {"unit": unit, "key": of, "differences": differences(launch(case))}
        rows = [figures(binary) for binary in binaries(launch(case), archs)]
        return {"unit": unit, "key": of, "rows": rows}
    except Exception as error:  # the boundary: whatever a compiler raises is this unit's result
        words = f"{type(error).__name__}: {error}".strip()
        return {"unit": unit, "error": words[-2000:]}


def figures(binary: Binary) -> Result:
    """Of one kernel on one target."""
    kernel = binary.kernel
    row: Result = {"kernel": kernel.name, "arch": binary.arch, "shared": binary.shared}
    row |= machine_code.resources(binary.cubin)
    weights = machine_code.weights_of_step(kernel)
    if weights is None:
        return row
    row["row_bytes"] = machine_code.row_bytes(kernel)
    row["in_8_bits"] = machine_code.reads_8_bits(kernel)
    if binary.arch == LOOPS_OF:
        instructions, row["loop_barriers"] = machine_code.loop(binary.cubin)
        if instructions:  # short rows have no loop
            threads = 32 * kernel.metadata.num_warps
            row["per_32_weights"] = round(32 * instructions * threads / weights, 1)
    return row


def _read(path: Path) -> Iterator[tuple[tuple[str, str], Result]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            result = json.loads(line)
        except ValueError:
            continue  # a run was stopped in the middle of a line
        if "key" in result:
            yield (result["unit"], result["key"]), result


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
