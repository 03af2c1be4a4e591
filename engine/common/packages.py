"""Packages that only some of what ktchat does needs, and the commands that bring them."""

from __future__ import annotations

import importlib.util
import shlex
import sys

from engine.errors import MissingPackageError

LLAMA_CPP = "llama-cpp-python==0.3.36"
"""llama.cpp as pip knows it; the extra `llama` of pyproject.toml says the same."""


def pip(arguments: str) -> str:
    """The command that installs packages into this Python."""
    return f"{python()} -m pip install {arguments}"


def python() -> str:
    """This Python, as a shell takes it."""
    return shlex.quote(sys.executable or "python3")


def require_llama_cpp(what: str) -> None:
    """Raise `MissingPackageError` where llama.cpp is not installed, which `what` needs."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise MissingPackageError(
            f"{what} needs llama.cpp, which is not installed",
            "It is compiled for this processor, which takes 5 to 15 minutes and a C++ compiler",
            f"Install it: {pip(LLAMA_CPP)}",
        )
