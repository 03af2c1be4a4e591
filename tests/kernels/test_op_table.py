"""One table has the native library's functions: C++ is compiled against it, and Python calls by it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kernels.cpu import native, op_table
from kernels.cpu.build import _FLAGS, _SOURCE
from kernels.cpu.op_table import FUNCTIONS, NUMBERS, OPS, SOURCE, read

TEXT = SOURCE.read_text(encoding="utf-8")
DEFINED = re.compile(r"(?:KTCHAT_API|KT_API|visibility\(\"default\"\)\)\)) [\w* ]*?\**(kt_\w+)\(")


def test_every_line_is_read_and_every_function_has_one() -> None:
    assert len(FUNCTIONS) == len(re.findall(r"^(?:OP|FUNCTION)\(", TEXT, re.MULTILINE))
    sources = [path.read_text() for path in _SOURCE.iterdir() if path.suffix in (".cpp", ".h")]
    defined = {name for text in sources for name in DEFINED.findall(text)}
    assert defined - {"kt_memory_bandwidth"} == set(
        FUNCTIONS
    )  # a measurement, which the engine calls
    library = native.load()
    assert all(hasattr(library, symbol) for symbol in FUNCTIONS)


def test_an_ops_number_is_its_place_in_the_table() -> None:
    lines = re.findall(r"^OP\((\w+)", TEXT, re.MULTILINE)
    assert [(f"kt_{name}", number) for number, name in enumerate(lines)] == list(NUMBERS.items())


def test_kinds_are_expanded() -> None:
    functions = read('OP(one, "pfsn")\nFUNCTION(two, "p", "zw")\nOP(three, "nfr")')
    assert list(functions) == ["kt_one", "kt_three", "kt_two"]
    one, two, three = functions["kt_one"], functions["kt_two"], functions["kt_three"]
    assert (one.expanded, one.integers, one.kv_slots) == ("pfpnpnnnn", 8, 1)
    assert (two.expanded, two.result, two.kv_slots) == ("zppp", "p", None)
    assert (three.expanded, three.kv_slots) == ("nfpn", None)
    assert (one.layer, two.layer, three.layer) == (2, None, 2)  # among the arguments but the float
    assert len(one.argtypes) == 1 + 9 and len(two.argtypes) == 4  # an op has the context first
    assert op_table.MAX_WEIGHTS == 4 and OPS["kt_attention"].kv_slots == 2


CHANGES = {
    "a kind": lambda text: text.replace('OP(linear_add, "pnppp")', 'OP(linear_add, "pnnpp")'),
    "an argument less": lambda text: text.replace('OP(embed, "ppnfp")', 'OP(embed, "ppnf")'),
    "an argument more": lambda text: text.replace('"pnfsnpp"', '"pnfsnppp"'),
    "a float that is an integer": lambda text: text.replace('"pnnpfp"', '"pnnpnp"'),
    "a result": lambda text: text.replace('(has_tiles, "i"', '(has_tiles, "v"'),
    "an op that is not there": lambda text: text.replace("OP(norm,", 'OP(nothing, "p")\nOP(norm,'),
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
@pytest.mark.parametrize("change", [None, *CHANGES])
def test_a_table_that_says_something_else_is_not_compiled(
    change: str | None, tmp_path: Path
) -> None:
    shutil.copytree(_SOURCE, tmp_path / "src")
    if change is not None:
        changed = CHANGES[change](TEXT)
        assert changed != TEXT
        (tmp_path / "src" / "ops.inc.h").write_text(changed)
    command = ["g++", *_FLAGS, "-O0", "-fsyntax-only", str(tmp_path / "src" / "api.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (change is None), done.stderr
