"""Attachments as rows: what a turn or a draft says of them, and their texts, which a session keeps once each.

What is read is checked: the file may be damaged or edited by hand.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ktchat.attachments.attachment import (
    KINDS,
    MAX_ATTACHMENTS,
    MAX_CHARACTERS,
    Attachment,
    Draft,
    Kind,
)
from ktchat.common.text import one_line, sanitise

LOST = "(The text of this attachment was lost with a damaged file of sessions.)\n"
TEXT_COLUMNS = ("session", "hash", "text", "size")

_KINDS: dict[object, Kind] = {kind: kind for kind in KINDS}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_hash(value: object) -> bool:
    """Whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def column(attachments: Sequence[Attachment]) -> str | None:
    """What a row says of attachments, as JSON; their texts are named by their digests."""
    if not attachments:
        return None
    return json.dumps([_facts(item) | {"text": item.digest} for item in attachments])


def text_rows(session: str, attachments: Iterable[Attachment]) -> list[tuple[str, str, str, int]]:
    """The rows of texts, in the order of `TEXT_COLUMNS`."""
    found = {item.digest: item.text for item in attachments}
    return [(session, digest, text, len(text)) for digest, text in found.items()]


def from_column(value: object, texts: Mapping[str, str]) -> tuple[Attachment, ...]:
    """The attachments of a row; `texts` by their digests."""
    try:
        found = json.loads(str(value)) if value is not None else []
    except (ValueError, RecursionError):
        return ()
    items = found if isinstance(found, list) else []
    return tuple(
        _attachment(item, texts.get(str(item.get("text")), LOST))
        for item in items[:MAX_ATTACHMENTS]
        if isinstance(item, dict)
    )


def has_attachments(row: Mapping[str, Any] | sqlite3.Row) -> bool:
    """Whether a turn's or a draft's row names attachments; an older file that is only read has no such column."""
    return "attachments" in row.keys() and row["attachments"] is not None  # noqa: SIM118


def draft_from(row: Mapping[str, Any] | sqlite3.Row, texts: Mapping[str, str]) -> Draft:
    """The draft in a row."""
    attachments = from_column(row["attachments"], texts) if has_attachments(row) else ()
    return Draft(str(row["text"]), attachments)


def exported(attachments: Iterable[Attachment]) -> list[dict[str, Any]]:
    """Attachments in our own JSON, with their texts."""
    return [_facts(item) | {"text": item.text} for item in attachments]


def imported(value: object) -> tuple[Attachment, ...]:
    """Attachments from our own JSON. Raises `ValueError` for what is none."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_ATTACHMENTS:
        raise ValueError("'attachments' is no list of a few")
    found = []
    for item in value:
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise ValueError("an attachment has no text that can be read")
        found.append(_attachment(item, text))
    return tuple(found)


def _facts(attachment: Attachment) -> dict[str, Any]:
    return {
        "name": attachment.name,
        "kind": attachment.kind,
        "sha256": attachment.sha256,
        "size": attachment.size,
    }


def _attachment(item: Mapping[str, Any], text: str) -> Attachment:
    sha256, size = item.get("sha256"), item.get("size")
    return Attachment(
        one_line(str(item.get("name") or "file"), 80),
        sanitise(text),
        _KINDS.get(item.get("kind"), "text"),
        str(sha256) if is_hash(sha256) else "",
        size if type(size) is int and 0 <= size < 1 << 50 else 0,
    )
