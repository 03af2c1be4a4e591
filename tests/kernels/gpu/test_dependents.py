"""Kernels that begin before the one before has ended, and wait for it by themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import kernels
from kernels.gpu import dependents

SOURCES = Path(kernels.__file__).parent / "gpu"


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_whoever_is_launched_early_waits_first() -> None:
    """Even one that reads nothing of the kernel before: the one after waits for this one alone."""
    launched, waiting, all_kernels = set(), set(), set()
    for path in SOURCES.rglob("*.py"):
        tree = ast.parse(path.read_text())
        aliases = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for call in calls(tree):
            early = any("early(" in ast.unparse(word) for word in call.keywords if not word.arg)
            if early:
                assert isinstance(call.func, ast.Subscript)
                module, _, name = ast.unparse(call.func.value).rpartition(".")
                launched.add((aliases.get(module, path.stem), name))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or not node.decorator_list:
                continue
            all_kernels.add((path.stem, node.name))
            if "behind_previous()" in ast.unparse(node.body[ast.get_docstring(node) is not None]):
                waiting.add((path.stem, node.name))
    assert launched <= all_kernels and len(launched) > 10
    assert launched <= waiting


@pytest.mark.parametrize(("compute", "setting", "early"), [
    ((8, 9), "1", False), ((9, 0), "1", True), ((12, 0), "1", True), ((9, 0), "0", False),
])  # fmt: skip
def test_launches_are_early_where_the_device_can(
    compute: tuple[int, int], setting: str, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dependents.early.cache_clear()
    monkeypatch.setenv("KTCHAT_GPU_DEPENDENTS", setting)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: compute)
    found = dependents.early(torch.device("cuda", 0))
    dependents.early.cache_clear()
    assert found == ({"launch_pdl": True} if early else {})
    assert dependents.early(torch.device("cpu")) == {}
