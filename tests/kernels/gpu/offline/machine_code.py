"""What a compiled kernel takes and does, as its machine code and its TTGIR state it."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton

from tests.kernels.gpu.offline.targets import has_dot

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*)")
_DOTS = "DOT", "DOT0", "GATE", "UP"
"""Constexprs that are decoders for activations in 8 bits, then all decoders. A product of several matrices that
read the same rows is measured with one."""
_DECODERS = *_DOTS, "DECODE", "DECODE0", "DECODE_GATE", "DECODE_UP"
_BRANCH = re.compile(r"BRA.*`\((\.L_x_\d+)\)")
_LOAD = re.compile(r"tt\.load .*: tensor<([\dx]+)x!tt\.ptr<([a-z]+)(\d+)>, (#\w+)>")
_WORDS = re.compile(r'"ld\.global\.nc\.(?:v(\d)\.)?b32 .*: tensor<([\dx]+)x!tt\.ptr<i\d+>, (#\w+)>')
_LAYOUT = re.compile(
    r"(#blocked\d*) = #ttg\.blocked<\{sizePerThread = \[([\d, ]+)\], threadsPerWarp = \[([\d, ]+)\]"
)


def resources(cubin: bytes) -> dict[str, int]:
    """Registers a thread, bytes of stack (spills) and of static shared memory."""
    text = _tool(["cuobjdump", "--dump-resource-usage"], cubin)
    return {
        name: int(re.search(rf"{word}:(\d+)", text)[1])  # type: ignore[index]
        for name, word in (("registers", "REG"), ("stack", "STACK"))
    }


def loop(cubin: bytes) -> tuple[int, int]:
    """Instructions and barriers of the longest innermost loop; (0, 0) without one."""
    return max(_loops(_tool(["nvdisasm"], cubin)), default=(0, 0))


def weights_of_step(kernel: Any) -> int | None:
    """Weights that a program reads in a step of its loop, in all matrices; None for a kernel that is no vector
    product: those have a number of ROWS, and of blocks of 32, and decoders."""
    constants = constants_of(kernel)
    decoders = [name for name in _DECODERS if constants.get(name) is not None]
    if "ROWS" not in constants or not decoders or has_dot(kernel):
        return None
    in_float = any(name.startswith("DECODE") for name in decoders)
    step = "FLOAT_SPAN" if in_float and "FLOAT_SPAN" in constants else "SPAN"
    blocks = constants[step] if step in constants else constants["BLOCKS"]
    return 32 * int(constants["ROWS"] * blocks) * len(decoders)


def reads_8_bits(kernel: Any) -> bool:
    """Whether a vector product multiplies with activations in 8 bits."""
    constants = constants_of(kernel)
    return any(constants.get(name) is not None for name in _DOTS)


def row_bytes(kernel: Any) -> int | None:
    """Contiguous bytes of a row of weights that a warp reads with one load, the widest of its tiles' loads."""
    rows = constants_of(kernel).get("ROWS")
    layouts = {
        name: (_numbers(each), _numbers(threads))
        for name, each, threads in _LAYOUT.findall(kernel.asm["ttgir"])
    }
    loads = [
        (shape, int(bits) // 8, name)
        for shape, kind, bits, name in _LOAD.findall(kernel.asm["ttgir"])
        if kind == "i"
    ]
    loads += [
        (shape, 4 * int(words or 1), name)
        for words, shape, name in _WORDS.findall(kernel.asm["ttgir"])
    ]
    widths = []
    for shape, size, name in loads:
        sizes = [int(length) for length in shape.split("x")]
        if rows not in sizes or name not in layouts:
            continue
        each, threads = layouts[name]
        inner = range(sizes.index(rows) + 1, len(sizes))
        widths.append(math.prod(min(sizes[d], each[d] * threads[d]) for d in inner) * size)
    return max(widths, default=None)


def constants_of(kernel: Any) -> dict[str, Any]:
    """A kernel's constexprs by name."""
    names = kernel.src.fn.arg_names
    return {names[at[0]]: value for at, value in kernel.src.constants.items() if len(at) == 1}


def _loops(sass: str) -> Iterator[tuple[int, int]]:
    """Of each loop without another inside: its instructions and barriers."""
    labels: dict[str, int] = {}
    code: list[str] = []
    spans: list[tuple[int, int]] = []
    for line in sass.splitlines():
        if line.startswith(".L_x_"):
            labels[line.rstrip(":")] = len(code)
        elif found := _INSTRUCTION.match(line):
            code.append(found[2])
            branch = _BRANCH.search(found[2])
            # A branch to itself is the end's trap.
            if branch and labels.get(branch[1], len(code)) < len(code) - 1:
                spans.append((labels[branch[1]], len(code)))
    for first, last in spans:
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in spans):
            yield last - first, sum("BAR." in words for words in code[first:last])


def _tool(command: list[str], cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = [_TOOLS / command[0], *command[1:], file.name]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
