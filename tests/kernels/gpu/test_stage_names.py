"""What the stages of the GPU check call is there: they run on a machine with a GPU only, where a name that has moved
would cost a stage its first contact."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STAGES = sorted((Path(__file__).parents[2] / "gpu").glob("*.py"))
OURS = "kernels", "engine", "tests"


def missing(source: str) -> Iterator[str]:
    """Names that a source imports from our modules, and attributes of those modules, that are not there."""
    tree = ast.parse(source)
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS:
            of = importlib.import_module(str(node.module))
            for alias in node.names:
                found = member(of, alias.name)
                if found is None:
                    yield f"{node.module}.{alias.name}"
                elif isinstance(found, ModuleType):
                    modules[alias.asname or alias.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of_name = modules.get(node.value.id)
            if of_name is not None and not hasattr(of_name, node.attr):
                yield f"{of_name.__name__}.{node.attr}"


def member(of: ModuleType, name: str) -> Any:
    if not hasattr(of, name):
        try:
            importlib.import_module(f"{of.__name__}.{name}")
        except ImportError:
            return None
    return getattr(of, name)


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_names_are_there(path: Path) -> None:
    assert list(missing(path.read_text())) == []


def test_a_name_that_has_moved_is_found() -> None:
    source = (
        "from kernels.gpu.quant import gemv\nfrom kernels.quants import NOBODY\ngemv.nothing(1)\n"
    )
    assert list(missing(source)) == ["kernels.quants.NOBODY", "kernels.gpu.quant.gemv.nothing"]
