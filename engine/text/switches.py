"""What a chat template offers of thinking, found by rendering it with and without what switches it.

Names in a template promise nothing: a choice is offered where it changes the prompt, the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import TemplateError, thinking_not_offered
from engine.protocol import Message, Think

if TYPE_CHECKING:
    from engine.text.tokenizer import Part

Variables = dict[str, Any]
Render = Callable[[Variables], "list[Part]"]
"""The prompt of a short conversation with these variables. Raises `TemplateError`."""

PROBE = [Message("user", "Hello")]

_OFF: Variables = {
    "enable_thinking": False,  # Qwen3 and later, GLM, Gemma 4, SmolLM3, Nemotron-3, …
    "thinking": False,  # DeepSeek-V3.1 and later, Kimi-K3
    "thinking_mode": "disabled",  # MiniMax-M3
    "thinking_budget": 0,  # Seed-OSS
}
_ON: Variables = {"enable_thinking": True, "thinking": True, "thinking_mode": "enabled"}
_EFFORTS: tuple[Think, ...] = ("low", "medium", "high", "max")
_EFFORT_NAMES = ("reasoning_effort", "thinking_effort")  # gpt-oss, GLM-5, DeepSeek-V4; Kimi-K3
NAMES = frozenset((*_OFF, *_EFFORT_NAMES))


@dataclass(frozen=True, slots=True)
class Switches:
    """The choices of a template, each with the variables that make it, and the one that holds anyway."""

    choices: Mapping[Think, Variables] = field(default_factory=dict)
    default: Think | None = None

    def variables(self, think: Think | None, model: str = "This model") -> Variables:
        """What a template gets for a choice. Raises `RequestError` for one that is not offered."""
        if think is None:
            return {}
        if think not in self.choices:
            raise thinking_not_offered(model, think, tuple(self.choices))
        return self.choices[think]


def find(source: str, render: Render) -> Switches:
    """The choices of the template with this source. Raises nothing: one that fails offers none."""
    if not any(name in source for name in NAMES):
        return Switches()
    try:
        plain = render({})
        if render({}) != plain:  # it tells the time, or draws lots: nothing can be compared
            return Switches()
        return _found(plain, render)
    except TemplateError:
        return Switches()


def _found(plain: list[Part], render: Render) -> Switches:
    prompts: dict[Think, list[Part]] = {}
    choices: dict[Think, Variables] = {}
    for think, variables in (("off", _OFF), ("on", _ON)):
        if (prompt := _rendered(render, variables)) is not None:
            prompts[think], choices[think] = prompt, variables  # type: ignore[index]
    if len(prompts) < 2 or prompts["off"] == prompts["on"]:
        prompts, choices = {}, {}
    _add_efforts(plain if not prompts else prompts["on"], prompts, choices, render)
    default = next((think for think, prompt in prompts.items() if prompt == plain), None)
    return Switches(choices, default) if len(choices) > 1 else Switches()


def _add_efforts(
    thinking: list[Part],
    prompts: dict[Think, list[Part]],
    choices: dict[Think, Variables],
    render: Render,
) -> None:
    """Add the efforts that differ from each other. One that alone is as `thinking` without any takes the
    place of "on"; several that are the same say that the template does not tell them apart."""
    base = _ON if prompts else {}
    variables = {effort: base | dict.fromkeys(_EFFORT_NAMES, effort) for effort in _EFFORTS}
    found = {e: prompt for e in _EFFORTS if (prompt := _rendered(render, variables[e])) is not None}
    if _rendered(render, base | dict.fromkeys(_EFFORT_NAMES, "x")) not in (None, thinking):
        found.pop(
            "max", None
        )  # it writes any word: those remain that models with one are trained on
    distinct = {effort: p for effort, p in found.items() if list(found.values()).count(p) == 1}
    if len(distinct) < 2 and not (distinct and prompts):
        return
    if thinking in distinct.values():
        if len(distinct) < 2:
            return
        prompts.pop("on", None)
        choices.pop("on", None)
    for effort, prompt in distinct.items():
        prompts[effort], choices[effort] = prompt, variables[effort]


def _rendered(render: Render, variables: Variables) -> list[Part] | None:
    """The prompt; None where the template refuses these variables."""
    try:
        return render(variables)
    except TemplateError:
        return None
