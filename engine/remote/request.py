"""What is sent for a reply, and which of its fields a server refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine.errors import RequestError
from engine.protocol import Begun, Message, Sampling, Think
from engine.remote.server import Kind

_GOES_ON: dict[Kind, dict[str, Any]] = {
    "vLLM": {"continue_final_message": True, "add_generation_prompt": False},
    "SGLang": {"continue_final_message": True},
    "llama.cpp": {},
    "Ollama": {},
}
"""What has a server go on with a reply that is there; who is missing cannot."""

_FIXED = ("model", "messages", "stream", "continue_final_message", "add_generation_prompt")
"""Without these there is no reply, or another one than was asked for."""

_OTHERS = {"max_tokens": "max_completion_tokens"}
"""What a field that is refused may be called instead."""


def body(
    kind: Kind,
    model: str,
    messages: Sequence[Message],
    sampling: Sampling,
    seed: int,
    max_tokens: int | None,
    begun: Begun | None,
    think: Think | None,
) -> dict[str, Any]:
    """The fields of a request. Raises `RequestError`: the reply cannot go on there."""
    said = [{"role": message.role, "content": message.content} for message in messages]
    fields: dict[str, Any] = {"model": model, "messages": said, "stream": True}
    fields["stream_options"] = {"include_usage": True}
    if begun is not None:
        fields |= _going_on(kind, begun, said)
    fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
    everything = -1 if kind in ("vLLM", "SGLang") else 0
    fields |= {"top_k": sampling.top_k or everything, "min_p": sampling.min_p}
    if sampling.repeat_penalty != 1.0:
        ours = kind in ("llama.cpp", "llama-cpp-python", "Ollama")
        fields["repeat_penalty" if ours else "repetition_penalty"] = sampling.repeat_penalty
    if think in ("off", "on"):
        fields["chat_template_kwargs"] = {"enable_thinking": think == "on"}
    elif think is not None:
        fields["chat_template_kwargs"] = {"reasoning_effort": think}
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    return fields


def _going_on(kind: Kind, begun: Begun, said: list[dict[str, str]]) -> dict[str, Any]:
    if kind not in _GOES_ON or not begun.reply:
        raise RequestError(
            "The reply cannot go on",
            "Nothing was said of it yet"
            if kind in _GOES_ON
            else "This server cannot go on with one",
            "Ctrl+R writes it anew",
        )
    said.append({"role": "assistant", "content": begun.reply})
    return _GOES_ON[kind]


class Refused:
    """The fields that a server does not take, as far as it has said so."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def without(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields that are sent."""
        kept = {name: value for name, value in fields.items() if name not in self._names}
        for name, other in _OTHERS.items():
            if name in fields and name in self._names and other not in self._names:
                kept[other] = fields[name]
        return kept

    def learn(self, status: int, words: str, sent: dict[str, Any]) -> list[str]:
        """The fields that a refusal names, from now on left out; none: it is about something else."""
        if status not in (400, 422):
            return []
        named = [
            name
            for name in sent
            if name not in _FIXED and re.search(rf"(?<![a-z_]){name}(?![a-z_])", words)
        ]
        self._names.update(named)
        return named
