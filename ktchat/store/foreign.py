"""Conversations in the exports of other programs, as trees of messages.

Formats, from their own sources: llama.cpp's web UI (`{conv, messages}`, parents by id), Open WebUI
(`chat.history.messages`, `parentId`), ChatGPT (`mapping`, `current_node`). Values are checked as they are read;
`MalformedError` says what does not fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.common.units import count

MAX_NODES = 50_000
MAX_TEXT = 8 << 20

Role = Literal["user", "assistant", "system"]
_DETAILS = re.compile(r"<details[^>]*type=\"reasoning\"[^>]*>(.*?)</details>\s*", re.DOTALL)
_SUMMARY = re.compile(r"<summary>.*?</summary>", re.DOTALL)


class MalformedError(Exception):
    """A value is not what the format says; the words name it."""


@dataclass(slots=True)
class Node:
    """One message of a tree; one without a role only links others."""

    id: str
    parent: str | None
    role: Role | None = None
    text: str = ""
    thinking: str = ""
    time: float = 0.0
    model: str = ""


@dataclass(slots=True)
class Tree:
    """One conversation."""

    title: str = ""
    system: str = ""
    created: float = 0.0
    updated: float = 0.0
    nodes: list[Node] = field(default_factory=list)
    """Parents before their children, or not: links count."""
    current: str = ""
    """The last message that is shown; empty: the newest branch."""


def llama_cpp(data: dict[str, Any]) -> Tree:
    """A conversation of llama.cpp's web UI."""
    conv = mapping(data, "conv")
    nodes = []
    for item in items(data, "messages"):
        role = _role(item.get("role")) if item.get("type") != "root" else None
        thinking = optional(item, "thinking") or optional(item, "reasoningContent")
        parent = item.get("parent")
        nodes.append(
            Node(
                _id(item.get("id")),
                None if parent in (None, -1, "") else _id(parent),
                role if string(item, "content") or role != "system" else None,
                string(item, "content"),
                thinking,
                moment(item.get("timestamp")),
                optional(item, "model"),
            )
        )
    current = conv.get("currNode")
    changed = moment(conv.get("lastModified"))
    title = optional(conv, "name")
    return Tree(title, "", changed, changed, nodes, "" if current is None else _id(current))


def open_webui(data: dict[str, Any]) -> Tree:
    """A chat of Open WebUI."""
    chat = mapping(data, "chat")
    history = mapping(chat, "history")
    nodes = []
    for key, item in mapping(history, "messages").items():
        if not isinstance(item, dict):
            raise MalformedError(f"message {key!r} is no object")
        text = _plain(item.get("content"))
        found = _DETAILS.findall(text) if item.get("role") == "assistant" else []
        thinking = "\n\n".join(_unquoted(_SUMMARY.sub("", part)) for part in found)
        parent = item.get("parentId")
        nodes.append(
            Node(
                str(key),
                None if parent is None else _id(parent),
                _role(item.get("role")),
                _DETAILS.sub("", text) if found else text,
                thinking,
                moment(item.get("timestamp")),
                optional(item, "model"),
            )
        )
    params = chat.get("params")
    system = optional(params, "system") if isinstance(params, dict) else ""
    title = optional(data, "title") or optional(chat, "title")
    created, updated = moment(data.get("created_at")), moment(data.get("updated_at"))
    created = created or moment(chat.get("timestamp"))
    return Tree(title, system, created, updated, nodes, optional(history, "currentId"))


def chatgpt(data: dict[str, Any]) -> Tree:
    """A conversation of ChatGPT's `conversations.json`. What tools said is left out."""
    nodes = []
    for key, item in mapping(data, "mapping").items():
        if not isinstance(item, dict):
            raise MalformedError(f"node {key!r} is no object")
        parent, message = item.get("parent"), item.get("message")
        node = Node(str(key), None if parent is None else _id(parent))
        if isinstance(message, dict):
            _fill_chatgpt(node, message)
        nodes.append(node)
    created, updated = moment(data.get("create_time")), moment(data.get("update_time"))
    title, current = optional(data, "title"), optional(data, "current_node")
    return Tree(title, "", created, updated, nodes, current)


def _fill_chatgpt(node: Node, message: dict[str, Any]) -> None:
    author, content = message.get("author"), message.get("content")
    role = author.get("role") if isinstance(author, dict) else None
    node.time = moment(message.get("create_time"))
    if not isinstance(content, dict) or role not in ("user", "assistant"):
        return
    kind = content.get("content_type")
    if message.get("recipient") not in (None, "all"):
        return  # said to a tool
    metadata = message.get("metadata")
    if isinstance(metadata, dict):
        if metadata.get("is_visually_hidden_from_conversation") is True:
            return
        node.model = optional(metadata, "model_slug")
    if kind in ("text", "multimodal_text"):
        node.role, node.text = role, _plain(content.get("parts"))
    elif kind == "code":
        node.role, node.text = role, f"```\n{optional(content, 'text')}\n```"
    elif kind == "thoughts" and isinstance(content.get("thoughts"), list):
        thoughts = [t for t in content["thoughts"] if isinstance(t, dict)]
        node.role = role
        node.thinking = "\n\n".join(filter(None, (optional(t, "content") for t in thoughts)))


# Values.


def mapping(data: dict[str, Any], name: str) -> dict[str, Any]:
    """An object that must be there, with a bounded number of values."""
    value = data.get(name)
    if not isinstance(value, dict):
        raise MalformedError(f"{name!r} is no object")
    if len(value) > MAX_NODES:
        raise MalformedError(f"{name!r} has {len(value)} values")
    return value


def items(data: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The objects in a list that must be there."""
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MalformedError(f"{name!r} is no list of objects")
    if len(value) > MAX_NODES:
        raise MalformedError(f"{name!r} has {len(value)} values")
    yield from value


def string(data: dict[str, Any], name: str) -> str:
    """A text that must be there."""
    value = data.get(name)
    if not isinstance(value, str):
        raise MalformedError(f"{name!r} is no text")
    if len(value) > MAX_TEXT:
        raise MalformedError(f"{name!r} has {count(len(value))} characters")
    return value


def optional(data: dict[str, Any], name: str) -> str:
    """A text that may be missing."""
    return "" if data.get(name) is None else string(data, name)


def moment(value: object) -> float:
    """A Unix time in seconds, from one in seconds, milliseconds or nanoseconds; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    for unit in (1.0, 1e3, 1e9):
        if 0 < value / unit < 1e11:
            return float(value / unit)
    return 0.0


def _id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > 200:
        raise MalformedError("an id is neither a text nor a number")
    return str(value)


def _role(value: object) -> Role | None:
    known: dict[object, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
    return known.get(value) if isinstance(value, str) else None


def _plain(value: object) -> str:
    """Text, or the texts in a list of parts; other parts are named."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return string({"content": value}, "content")
    if len(value) > MAX_NODES:
        raise MalformedError(f"a message has {len(value)} parts")
    return string({"content": "\n\n".join(filter(None, map(_part, value)))}, "content")


def _part(value: object) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("text"), str):
        return str(value["text"])
    kind = value.get("content_type") or value.get("type")
    return f"[{kind}]" if isinstance(kind, str) and len(kind) < 60 else ""


def _unquoted(text: str) -> str:
    """Open WebUI keeps reasoning as a quotation."""
    return "\n".join(
        line.removeprefix("> ").removeprefix(">") for line in text.strip().splitlines()
    )


READERS: tuple[tuple[str, str, Callable[[dict[str, Any]], Tree]], ...] = (
    ("conv", "llama.cpp", llama_cpp),
    ("chat", "Open WebUI", open_webui),
    ("mapping", "ChatGPT", chatgpt),
)
"""The key by which a conversation's format is told, the program, and what reads it."""
