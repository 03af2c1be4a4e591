"""Commands and events as bytes: frames of a four-byte big-endian length, then UTF-8 JSON.

What comes from the other side is checked: names, fields, and the type of every value.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from engine.common.insight import HOPS, MAX_SLICES, ExpertCounts, NoExperts
from engine.common.units import byte_size
from engine.errors import EngineError, KtchatError, RequestError
from engine.protocol import (
    AnswerNow,
    Auto,
    Begun,
    Cancel,
    Close,
    Command,
    Computed,
    Count,
    Counted,
    Device,
    Event,
    Failed,
    Figures,
    Finished,
    Generate,
    Insight,
    KvKind,
    Load,
    Loaded,
    Message,
    Notice,
    Observe,
    PartialSampling,
    Prefilled,
    Progress,
    Reason,
    Role,
    RuntimeName,
    Sampling,
    Stage,
    Text,
    Think,
    Thinking,
    WasThinking,
)

MAX_FRAME = 64 << 20
"""Bytes in one frame; a longer one comes from a broken program."""

Item = Command | Event | Counted

_LENGTH = struct.Struct(">I")

_TYPES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        *(Load, Generate, Count, Cancel, AnswerNow, Observe, Close, Counted),
        *(Progress, Notice, Loaded, Prefilled, Thinking, Text, WasThinking, Insight, Finished),
        Failed,
    )
}


def encode(item: Item) -> bytes:
    """One frame: length and JSON of a command or an event. Raises `RequestError` when too long."""
    body = item.error.to_dict() if isinstance(item, Failed) else dataclasses.asdict(item)
    data = json.dumps([type(item).__name__, body], ensure_ascii=True).encode()
    if len(data) > MAX_FRAME:
        raise RequestError(
            "The conversation is too long to be sent", f"It takes {byte_size(len(data))}"
        )
    return _LENGTH.pack(len(data)) + data


def decode(data: bytes) -> Item:
    """The command or event in one frame's JSON. Raises `EngineError` for anything else."""
    try:
        name, body = json.loads(data)
        item: Item = _build(_TYPES[name], body)
    except RequestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(
            "The engine sent something unreadable", f"{type(error).__name__}: {error}"[:200]
        ) from error
    return item


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Item]:
        """What `data` completes. Raises `EngineError` for a frame too long or unreadable."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise EngineError("The engine sent something unreadable", f"{length} bytes at once")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            frame = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield decode(frame)


def _build(cls: type[Any], body: Mapping[str, Any]) -> Any:
    if cls is Failed:
        return Failed(KtchatError.from_dict(dict(body)))
    if cls is Generate:
        body = {
            **body,
            "messages": tuple(_plain(Message, message) for message in body["messages"]),
            "sampling": _plain(Sampling, body["sampling"]),
            "begun": None if body.get("begun") is None else _plain(Begun, body["begun"]),
        }
    elif cls is Count:
        messages = tuple(_plain(Message, message) for message in body["messages"])
        body = {**body, "messages": messages}
    elif cls is Counted:
        body = {**body, "each": _counts(body.get("each", []))}
    elif cls is Loaded:
        body = {
            **body,
            "think": _choices(body.get("think", [])),
            "sampling": _plain(PartialSampling, body.get("sampling", {})),
        }
    elif cls is Insight:
        experts = body.get("experts")
        body = {
            **body,
            "experts": None if experts is None else _plain(ExpertCounts, experts),
            "hop_seconds": _numbers(body.get("hop_seconds", []), len(HOPS), (int, float)),
            "slices": _numbers(body.get("slices", []), MAX_SLICES, (int,)),
        }
    elif cls is Finished:
        body = {**body, "figures": _plain(Figures, body["figures"])}
    return _plain(cls, body)


def _plain(cls: type[Any], body: Mapping[str, Any]) -> Any:
    """An instance of `cls`, each value of the type its field says."""
    for field_ in dataclasses.fields(cls):
        if field_.name in body and not _fits(body[field_.name], str(field_.type)):
            raise TypeError(f"{cls.__name__}.{field_.name}: {body[field_.name]!r}")
    return cls(**body)


def _counts(numbers: object) -> tuple[object, ...]:
    """The numbers of a `Counted.each`."""
    if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
        raise TypeError("Counted.each")
    return tuple(numbers)


def _numbers(values: object, most: int, kinds: tuple[type, ...]) -> tuple[object, ...]:
    """The numbers of an `Insight`, at most so many and none below 0."""
    if not isinstance(values, list) or len(values) > most:
        raise TypeError("Insight: numbers")
    if not all(type(value) in kinds and 0 <= value < math.inf for value in values):
        raise TypeError("Insight: numbers")
    return tuple(values)


def _choices(words: object) -> tuple[object, ...]:
    """The words of a `Loaded.think`, each once."""
    known = get_args(Think)
    if not isinstance(words, list) or len(words) > len(known):
        raise TypeError(f"Loaded.think: {words!r}")
    if any(word not in known for word in words) or len(set(words)) < len(words):
        raise TypeError(f"Loaded.think: {words!r}")
    return tuple(words)


_WORDS: dict[str, tuple[object, ...]] = {
    "Role": get_args(Role),
    "Reason": get_args(Reason),
    "Stage": get_args(Stage),
    "RuntimeName": get_args(RuntimeName),
    "Auto": get_args(Auto),
    "Device": get_args(Device),
    "KvKind": get_args(KvKind),
    "Computed": get_args(Computed),
    "NoExperts": get_args(NoExperts),
    "Think": get_args(Think),
}
_PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}


def _fits(value: object, annotation: str) -> bool:
    return any(_is_a(value, one) for one in annotation.split(" | "))


def _is_a(value: object, annotation: str) -> bool:
    if annotation == "None":
        return value is None
    if annotation in _WORDS:
        return isinstance(value, str) and value in _WORDS[annotation]
    if annotation == "bool":
        return isinstance(value, bool)
    plain = _PLAIN.get(annotation)
    return plain is None or (isinstance(value, plain) and not isinstance(value, bool))
