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
    switch = _prompts({"off": _OFF, "on": _ON}, render)
    if len(switch) < 2 or switch["off"] == switch["on"]:
        switch = {}
    thinking = switch.get("on", plain)
    variables: dict[Think, Variables] = {"off": _OFF, "on": _ON}
    variables |= {effort: _effort(effort, bool(switch)) for effort in _EFFORTS}
    efforts = _efforts(variables, thinking, render)
    if thinking in efforts.values():  # that effort is what "on" means
        switch.pop("on", None)
    prompts = switch | efforts
    default = next((think for think, prompt in prompts.items() if prompt == plain), None)
    choices = {think: variables[think] for think in prompts}
    return Switches(choices, default) if len(choices) > 1 else Switches()


def _efforts(
    variables: Mapping[Think, Variables], thinking: list[Part], render: Render
) -> dict[Think, list[Part]]:
    """The efforts whose prompts differ from each other's: others the template does not tell apart."""
    found = _prompts({effort: variables[effort] for effort in _EFFORTS}, render)
    word = _rendered(_effort("x", variables["low"].keys() >= _ON.keys()), render)
    if word not in (None, thinking):  # it writes any word: those stay that models are trained on
        found.pop("max", None)
    prompts = list(found.values())
    return {effort: prompt for effort, prompt in found.items() if prompts.count(prompt) == 1}


def _effort(word: str, switched: bool) -> Variables:
    """Variables for an effort, which some templates heed only where thinking is switched on."""
    return (_ON if switched else {}) | dict.fromkeys(_EFFORT_NAMES, word)


def _prompts(variables: Mapping[Think, Variables], render: Render) -> dict[Think, list[Part]]:
    """The prompt for each choice that the template does not refuse."""
    rendered = {think: _rendered(given, render) for think, given in variables.items()}
    return {think: prompt for think, prompt in rendered.items() if prompt is not None}


def _rendered(variables: Variables, render: Render) -> list[Part] | None:
    """The prompt; None where the template refuses these variables."""
    try:
        return render(variables)
    except TemplateError:
        return None
