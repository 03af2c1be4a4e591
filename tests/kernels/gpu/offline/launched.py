"""Which kernels the launchers of `kernels.gpu` start, read from their sources: none may be compiled by no case."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kernels

_SOURCES = Path(kernels.__file__).parent / "gpu"


def absent(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Names of kernels that are launched somewhere, and are in none of the rows."""
    return sorted(launched() - {row["kernel"] for row in rows})


@cache
def launched() -> set[str]:
    """Names of functions of Triton that are called with a grid, `name[grid](…)`."""
    trees = [ast.parse(path.read_text()) for path in sorted(_SOURCES.rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return set(_with_grid(nodes)) & set(_compiled(nodes))


def _compiled(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and any(
            "triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            yield node.name


def _with_grid(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
            yield ast.unparse(node.func.value).rpartition(".")[2]
