"""Chat formats of our own, for models whose template is missing or fails.

A format is chosen by the vocabulary. Control tokens stand in special parts, what people and models
wrote in plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.gguf.file import LazyArray
from engine.protocol import Message
from engine.text.tokenizer import Part


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """Text around each kind of message; `{}` is where its content goes. `tokens` must all exist.

    `system` None: its content goes in front of the first user message.
    """

    name: str
    tokens: tuple[str, ...]
    user: str
    assistant: str
    system: str | None
    reply: str
    """What makes the model answer."""

    def render(self, messages: Sequence[Message]) -> list[Part]:
        """The prompt for an answer to `messages`."""
        parts: list[Part] = []
        pending = ""
        for message in messages:
            content = message.content
            if message.role == "system" and self.system is None:
                pending = f"{pending}{content}\n\n"
                continue
            if message.role == "user" and pending:
                content, pending = pending + content, ""
            around = {"system": self.system, "user": self.user, "assistant": self.assistant}
            before, _, after = (around[message.role] or "{}").partition("{}")
            parts += [Part(before, True), Part(content, False), Part(after, True)]
        return [part for part in [*parts, Part(self.reply, True)] if part.text]


FORMATS: tuple[ChatFormat, ...] = (
    ChatFormat(
        "ChatML",
        ("<|im_start|>", "<|im_end|>"),
        "<|im_start|>user\n{}<|im_end|>\n",
        "<|im_start|>assistant\n{}<|im_end|>\n",
        "<|im_start|>system\n{}<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    ChatFormat(
        "Llama 3",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    ChatFormat(
        "Llama 4",
        ("<|header_start|>", "<|header_end|>", "<|eot|>"),
        "<|header_start|>user<|header_end|>\n\n{}<|eot|>",
        "<|header_start|>assistant<|header_end|>\n\n{}<|eot|>",
        "<|header_start|>system<|header_end|>\n\n{}<|eot|>",
        "<|header_start|>assistant<|header_end|>\n\n",
    ),
    ChatFormat(
        "DeepSeek",
        ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        "<｜User｜>{}",
        "<｜Assistant｜>{}<｜end▁of▁sentence｜>",
        "{}",
        "<｜Assistant｜>",
    ),
    ChatFormat(
        "Kimi",
        ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
        "<|im_user|>user<|im_middle|>{}<|im_end|>",
        "<|im_assistant|>assistant<|im_middle|>{}<|im_end|>",
        "<|im_system|>system<|im_middle|>{}<|im_end|>",
        "<|im_assistant|>assistant<|im_middle|>",
    ),
    ChatFormat(
        "Harmony",
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
        "<|start|>user<|message|>{}<|end|>",
        "<|start|>assistant<|channel|>final<|message|>{}<|end|>",
        "<|start|>developer<|message|># Instructions\n\n{}<|end|>",
        "<|start|>assistant",
    ),
    ChatFormat(
        "GLM",
        ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        "<|user|>\n{}",
        "<|assistant|>\n{}",
        "<|system|>\n{}",
        "<|assistant|>\n",
    ),
    ChatFormat(
        "Phi",
        ("<|user|>", "<|assistant|>", "<|end|>"),
        "<|user|>\n{}<|end|>\n",
        "<|assistant|>\n{}<|end|>\n",
        "<|system|>\n{}<|end|>\n",
        "<|assistant|>\n",
    ),
    ChatFormat(
        "Gemma",
        ("<start_of_turn>", "<end_of_turn>"),
        "<start_of_turn>user\n{}<end_of_turn>\n",
        "<start_of_turn>model\n{}<end_of_turn>\n",
        None,
        "<start_of_turn>model\n",
    ),
    ChatFormat(
        "Mistral",
        ("[INST]", "[/INST]", "</s>"),
        "[INST]{}[/INST]",
        "{}</s>",
        None,
        "",
    ),
    ChatFormat(
        "Llama 2",
        ("<s>", "</s>", "<0x0A>"),
        "[INST] {} [/INST]",
        " {}</s>",
        None,
        "",
    ),
)
"""The most telling first; each is tried when all its tokens are in the vocabulary."""

PLAIN = ChatFormat(
    "plain text", (), "User: {}\n\n", "Assistant: {}\n\n", "{}\n\n", "Assistant:"
)  # fmt: skip


def guess(tokens: LazyArray | None) -> ChatFormat:
    """The format that a vocabulary was made for."""
    if tokens is None or tokens.element != "string":
        return PLAIN
    wanted = {token.encode() for form in FORMATS for token in form.tokens}
    there = wanted.intersection(tokens.raw())
    for form in FORMATS:
        if all(token.encode() in there for token in form.tokens):
            return form
    return PLAIN
