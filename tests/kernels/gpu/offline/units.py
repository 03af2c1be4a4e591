"""What is compiled, on each of two versions of Triton; what is written is enough for twelve minutes on two cores.

Kernels without weights and of types that are multiplied in 8 bits: for GPUs before Hopper on both versions, for
Hopper and later on one of them. Other types are on one version: a token's products for all GPUs, all else, and what
only ik_llama.cpp has, for two; of each one product for one GPU on the other version. Of a prompt's variants a type has
one in turn, of those for few tokens every fourth type. `everything` is all of it, on both, and takes an hour.

A unit is "CASE" of `op_cases` or "TYPE: CASE" of `product_cases`, and "@ ARCH,ARCH" for what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from triton import knobs

from kernels.gpu.quant.formats import FORMATS
from kernels.quants import IK_TYPES
from tests.kernels.gpu.offline import op_cases, product_cases
from tests.kernels.gpu.offline.targets import (
    FIRST,
    LOOPS_OF,
    OLDER,
    TARGETS,
    launches,
)

OF_FEW = f"{LOOPS_OF},90"
"""Targets of types that few files have."""
FOR_ALL = "one row", "experts of a token"
SAME = "same: "
WITNESSES = ("Q4_K: one row", "IQ2_S: experts of a token", "Q6_K: pack", "decode, 8 x 128")
"""Cases that show that what targets share is what each would have got of its own."""


def units(turn: int = 0, everything: bool = False) -> list[str]:
    """Those of one version; `turn` is its number."""
    found = []
    single = (case for case in op_cases.CASES if case not in op_cases.AS_OTHERS)
    for number, case in enumerate(single):
        found.append(_unit(case, everything or (number + turn) % 2 == 0))
    for number, kind in enumerate(product_cases.TYPES):
        mine = everything or (number + turn) % 2 == 0
        cases = [f"{kind}: {case}" for case in _of_type(number + turn, everything)]
        if everything or FORMATS[kind].dot is not None:
            found += [_unit(case, mine) for case in cases]
        elif mine:
            found += [
                _unit(case, True)
                if kind not in IK_TYPES and case.endswith(FOR_ALL)
                else f"{case} @ {OF_FEW}"
                for case in cases
            ]
        elif kind not in IK_TYPES:
            found.append(f"{kind}: one row @ {LOOPS_OF}")
        if FORMATS[kind].dot is not None:
            found.append(f"{kind}: {product_cases.WIDE_TOKEN} @ {LOOPS_OF}")
    return found


def _of_type(number: int, everything: bool) -> Iterator[str]:
    prompts, few = product_cases.FOR_PROMPTS, product_cases.FOR_FEW
    yield from product_cases.OF_EVERY_TYPE
    if everything:
        yield from (*prompts, *few)
        return
    yield prompts[number % len(prompts)]
    if number % 4 == 1:
        yield few[number // 4 % len(few)]


def _unit(case: str, everywhere: bool) -> str:
    return f"{case} @ {','.join(map(str, TARGETS if everywhere else OLDER))}"


def split(unit: str) -> tuple[str, tuple[int, ...]]:
    """The case of a unit, and its targets."""
    case, _, archs = unit.partition(" @ ")
    return case, tuple(map(int, archs.split(","))) if archs else TARGETS


def launch(case: str) -> Callable[[], Any]:
    """What launches the kernels of a case."""
    kind, _, of_type = case.partition(": ")
    return product_cases.cases(kind)[of_type] if of_type else op_cases.CASES[case]


def key(case: str) -> str:
    """Changes with everything that a case's kernels are compiled from: sources, constants, argument types."""
    digest = hashlib.sha256(_tools())

    def note(compile_it: Callable[[], Any], function: Any, *args: Any, **named: Any) -> None:
        words = [function.cache_key, *map(_word, args)]
        words += [f"{name}={_word(value)}" for name, value in sorted(named.items())]
        digest.update("|".join(words).encode())

    with launches(note, FIRST):
        launch(case)()
    return digest.hexdigest()[:20]


def specialisations(case: str) -> set[tuple[str, str]]:
    """(kernel, key) of all that Triton would compile for a case; nothing is compiled."""
    found: set[tuple[str, str]] = set()

    def note(*, key: str, fn: Any, **named: Any) -> bool:
        found.add((fn.name, key))
        return True

    def run(compile_it: Callable[[], Any], *call: Any, **named: Any) -> None:
        compile_it()

    before, knobs.runtime.jit_cache_hook = knobs.runtime.jit_cache_hook, note
    try:
        with launches(run, FIRST):
            launch(case)()
    finally:
        knobs.runtime.jit_cache_hook = before
    return found


def _word(value: Any) -> str:
    if hasattr(value, "cache_key"):
        return str(value.cache_key)
    if isinstance(value, tuple):
        return ",".join(map(_word, value))
    return str(getattr(value, "dtype", value))


def _tools() -> bytes:
    """The sources of this folder that make figures."""
    folder = Path(__file__).parent
    return b"".join(
        (folder / f"{name}.py").read_bytes() for name in ("targets", "machine_code", "worker")
    )
