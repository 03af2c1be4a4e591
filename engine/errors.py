"""Typed errors that reach the person: what happened, why, and what to do next.

An error crosses the engine's pipe as a plain dict and arrives as the same type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

ON_CPU = "--device cpu"
"""In an error's `todo` where the CPU can do what a GPU cannot: the screen has a key for it."""


class KtchatError(Exception):
    """A failure of the user's world, in three short sentences.

    `what` happened, `why` it happened, and what to do (`todo`). `str()` joins them in one line.
    """

    kinds: ClassVar[dict[str, type[KtchatError]]] = {}

    def __init_subclass__(cls) -> None:
        KtchatError.kinds[cls.__name__] = cls

    def __init__(self, what: str, why: str = "", todo: str = "") -> None:
        what, why, todo = map(without_secrets, (what, why, todo))
        super().__init__(what, why, todo)
        self.what = what
        self.why = why
        self.todo = todo

    def __str__(self) -> str:
        return " ".join(_sentence(part) for part in (self.what, self.why, self.todo) if part)

    def to_dict(self) -> dict[str, str]:
        """The error as it crosses a pipe."""
        return {
            "kind": type(self).__name__,
            "what": self.what,
            "why": self.why,
            "todo": self.todo,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> KtchatError:
        """The error that `to_dict` described; an unknown kind becomes a plain `KtchatError`."""
        cls = KtchatError.kinds.get(str(data.get("kind")), KtchatError)
        return cls(str(data.get("what", "")), str(data.get("why", "")), str(data.get("todo", "")))


_SECRET = re.compile(
    r"\b(hf_|sk-(?:proj-|ant-)?|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AKIA|AIza)[A-Za-z0-9_\-]{12,}"
    r"|(?<=Bearer )[^\s\"']{8,}"
)
"""Tokens and keys by how they begin."""


def without_secrets(text: str) -> str:
    """The text with tokens and keys blacked out: `hf_…`."""
    return _SECRET.sub(lambda found: f"{found[1] or ''}…", text)


def _sentence(text: str) -> str:
    return text if text.endswith((".", ":", "?")) else text + "."


class ModelFileError(KtchatError):
    """A model file that is missing, unreadable, damaged or lies about itself."""


class UnsupportedModelError(KtchatError):
    """A well-formed model that neither of our runtimes can run."""


class TemplateError(KtchatError):
    """A chat template that fails, runs too long, or produces too much."""


class ContextError(KtchatError):
    """A prompt that is longer than the model's context."""


class MemoryShortError(KtchatError):
    """Not enough memory for what was asked."""


class EngineError(KtchatError):
    """The engine process died, could not be started, or broke its protocol."""


class GpuUnusableError(EngineError):
    """A GPU is there, but cannot compute for us, or computes something else than it should."""


class MissingPackageError(KtchatError):
    """Something needs a package that is not installed; `todo` has the command that brings it."""


class RequestError(KtchatError):
    """A request that makes no sense: wrong sampling values, no messages, no model loaded."""


class ThinkingError(RequestError):
    """A choice of thinking that the model's chat template does not offer."""


def thinking_not_offered(model: str, think: str, offered: Sequence[str]) -> ThinkingError:
    """The error for such a choice."""
    if not offered:
        return ThinkingError(
            f"The thinking of {model} cannot be set",
            "Its chat template offers no choice",
            "Leave the choice out",
        )
    return ThinkingError(
        f"The thinking of {model} cannot be set to {think}",
        "Its chat template does not offer that",
        f"Choose one of: {', '.join(offered)}",
    )
