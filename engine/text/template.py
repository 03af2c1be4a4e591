"""Messages to a prompt, by the chat template in the model's file.

The template never sees what people wrote: messages carry placeholders of random digits, and the
text goes in where they come out, as parts in which no control token is recognised. A template that
fails gives way to a built-in format.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from typing import Any

from engine.common.model_names import model_name
from engine.errors import TemplateError
from engine.gguf.file import GGUFFile
from engine.protocol import Message, Think
from engine.text.chat_formats import ChatFormat, guess
from engine.text.switches import PROBE, Switches, Variables, find
from engine.text.template_process import SECONDS, TemplateProcess
from engine.text.tokenizer import Part

MAX_USES = 4
"""How often a template may write one message."""
MAX_KILLS = 2
"""After so many stops a template is not tried again."""
MAX_TEXT = 64 << 20

_PRINTED_LIST = re.compile(r"""["']type["']: ["']text["']""")
"""What a template writes that takes a list of contents for text."""
_INDEX = 6
"""Digits of a message's number behind the random ones."""


class ChatTemplate:
    """The way a model's conversations are written."""

    def __init__(self, file: GGUFFile) -> None:
        self._vocabulary = file.array("tokenizer.ggml.tokens")
        self._tokens = {
            name: _token_text(file, f"tokenizer.ggml.{key}_token_id")
            for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"))
        }
        self._name = model_name(file.metadata.get("general.name"), file.path.name)
        self._source = ""
        self._lock = threading.Lock()
        self._process: TemplateProcess | None = None
        self.notice: str | None = None
        """What the person should know, once the built-in format was used."""
        source = file.metadata.get("tokenizer.chat_template")
        if not isinstance(source, str) or not source.strip():
            self._explain("The model has no chat template")
            return
        self._source = source
        try:
            self._process = TemplateProcess(source)
        except TemplateError as error:
            self._explain(str(error))

    @classmethod
    def start(cls, file: GGUFFile) -> ChatTemplate:
        """The template of an open file; its process starts in the background."""
        return cls(file)

    @cached_property
    def switches(self) -> Switches:
        """What the template offers of thinking; the first call renders it, for `SECONDS` at most."""
        process = self._process
        if process is None:
            return Switches()
        deadline = time.monotonic() + SECONDS

        def render(variables: Variables) -> list[Part]:
            if (
                time.monotonic() >= deadline
            ):  # stopped once already: no more of its stops are used up
                raise TemplateError("The model's chat template failed", "It takes too long")
            return self._render(process, PROBE, variables, deadline)

        return find(self._source, render)

    def render(
        self, messages: Sequence[Message], think: Think | None = None, *, quietly: bool = False
    ) -> list[Part]:
        """The prompt for the next reply; `quietly`: without a change of `notice`. Any thread may ask.

        Raises `TemplateError` when there are no messages, and `RequestError` for a `think` that is not offered."""
        with self._lock:
            told = self.notice
            parts = self._rendered(messages, think)
            if quietly:
                self.notice = told
            return parts

    def _rendered(self, messages: Sequence[Message], think: Think | None) -> list[Part]:
        if not messages:
            raise TemplateError("There is nothing to answer", "The conversation has no messages")
        variables = self.switches.variables(think, self._name) if think else {}
        if self._process is not None and self._process.kills < MAX_KILLS:
            try:
                parts = self._render(self._process, messages, variables)
            except TemplateError as error:
                self._explain(str(error))
            else:
                self.notice = None
                return parts
        return self._builtin.render(messages)

    @cached_property
    def _builtin(self) -> ChatFormat:
        return guess(self._vocabulary)

    def close(self) -> None:
        """Stop the template's process."""
        if self._process is not None:
            self._process.close()

    def _explain(self, why: str) -> None:
        why = why if why.endswith(".") else f"{why}."
        self.notice = f"{why} The built-in format {self._builtin.name} is used instead."

    def _render(
        self,
        process: TemplateProcess,
        messages: Sequence[Message],
        variables: Variables,
        deadline: float | None = None,
    ) -> list[Part]:
        """The template's prompt, for messages in the first form in which it writes them all."""
        deadline = time.monotonic() + SECONDS if deadline is None else deadline
        variables = variables | self._tokens
        failure: TemplateError | None = None
        partial: list[Part] | None = None
        for typed, merged in product((False, True), (False, True)):
            given = _merge(messages) if merged else messages
            if merged and list(given) == list(messages):
                continue
            placed = Placeholders(given)
            try:
                text = process.render(placed.variables(typed) | variables, deadline)
                if typed and _PRINTED_LIST.search(text):
                    continue
                parts, complete = placed.fill(text)
            except TemplateError as error:
                failure = failure or error
                if process.kills and time.monotonic() >= deadline:
                    break
                continue
            if complete:
                return parts
            partial = partial or parts
        if partial is not None:
            return partial
        assert failure is not None
        raise failure


class Placeholders:
    """Messages with random digits in place of their words."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._nonce = "".join(str(secrets.randbelow(10)) for _ in range(24))
        self._cores = [message.content.strip() for message in messages]

    def variables(self, typed: bool) -> dict[str, Any]:
        """What the template gets. `typed`: contents are lists, as models that see images want it.

        Blanks around a message are given as they are, since templates trim them.
        """
        given = []
        for number, message in enumerate(self._messages):
            core, text = self._cores[number], message.content
            if core:
                mark = f"{self._nonce}{number:0{_INDEX}}"
                start = text.index(core)
                text = text[:start] + mark + text[start + len(core) :]
            content: Any = [{"type": "text", "text": text}] if typed else text
            given.append({"role": message.role, "content": content})
        return {"messages": given, "add_generation_prompt": True, "tools": None, "documents": None}

    def fill(self, text: str) -> tuple[list[Part], bool]:
        """The prompt with the words put in, and whether it has every word that it must have.

        Raises `TemplateError` when the last message is missing or one comes too often.
        """
        parts: list[Part] = []
        uses = [0] * len(self._messages)
        position = total = 0
        for match in re.finditer(rf"{self._nonce}(\d{{{_INDEX}}})", text):
            number = int(match[1])
            if number >= len(uses):
                continue
            uses[number] += 1
            total += len(self._cores[number])
            if uses[number] > MAX_USES or total > MAX_TEXT:
                raise TemplateError("The model's chat template failed", "It repeats a message")
            parts.append(Part(text[position : match.start()], True))
            parts.append(Part(self._cores[number], False))
            position = match.end()
        parts.append(Part(text[position:], True))
        lost = [
            number
            for number, message in enumerate(self._messages)
            if not uses[number] and self._cores[number] and message.role != "assistant"
        ]
        if self._last in lost:
            raise TemplateError(
                "The model's chat template failed", "It leaves out the last message"
            )
        return [part for part in parts if part.text], not lost

    @property
    def _last(self) -> int:
        return len(self._messages) - 1


def _merge(messages: Sequence[Message]) -> list[Message]:
    """The same words in alternating turns without a system role, for templates that insist on it."""
    merged: list[Message] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if merged and merged[-1].role == role:
            joined = "\n\n".join(text for text in (merged[-1].content, message.content) if text)
            merged[-1] = Message(merged[-1].role, joined)
        else:
            merged.append(Message("assistant" if role == "assistant" else "user", message.content))
    return merged


def _token_text(file: GGUFFile, key: str) -> str:
    """The text of the token whose id is at `key`; empty when there is none, as llama.cpp has it."""
    number, tokens = file.metadata.get(key), file.array("tokenizer.ggml.tokens")
    if tokens is None or tokens.element != "string" or type(number) is not int:
        return ""
    return str(tokens[number]) if 0 <= number < len(tokens) else ""
