"""What the hub's answers say, checked: search results, repositories, files with checksums."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.hub.names import HubFile, HubModel

SHA1 = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One repository that a search found. Texts are as the hub sends them: not safe to draw."""

    repo: str
    downloads: int
    likes: int
    updated: str
    """Day, as 2026-05-01; empty if unknown."""
    gated: bool
    architecture: str
    context: int
    """Longest context the model was made for; 0 if unknown."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, and the models in it in order of size."""

    repo: str
    commit: str
    gated: bool
    licence: str
    downloads: int
    likes: int
    updated: str
    architecture: str
    context: int
    models: tuple[HubModel, ...]


def hit_of(info: Any) -> SearchHit:
    gguf: Mapping[str, Any] = info.gguf if isinstance(info.gguf, dict) else {}
    updated = info.last_modified
    return SearchHit(
        repo=str(info.id),
        downloads=_count(info.downloads),
        likes=_count(info.likes),
        updated=updated.strftime("%Y-%m-%d") if updated else "",
        gated=bool(info.gated),
        architecture=str(gguf.get("architecture") or "")[:60],
        context=_count(gguf.get("context_length")),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else 0


def licence_of(info: Any) -> str:
    tags = info.tags if isinstance(info.tags, list) else []
    for tag in tags:
        if isinstance(tag, str) and tag.startswith("license:"):
            return tag.removeprefix("license:")[:60]
    return ""


def file_of(repo: str, commit: str, sibling: Any) -> HubFile | None:
    """A file as the hub lists it; None without a size or a checksum."""
    lfs = sibling.lfs
    size = lfs.size if lfs is not None else sibling.size
    sha256 = str(lfs.sha256) if lfs is not None else ""
    blob = str(sibling.blob_id or "")
    if not isinstance(size, int) or not 0 < size < 1 << 50:
        return None
    if _SHA256.fullmatch(sha256):
        return HubFile(repo, commit, str(sibling.rfilename), size, f"sha256:{sha256}")
    if lfs is None and SHA1.fullmatch(blob):
        return HubFile(repo, commit, str(sibling.rfilename), size, f"git-sha1:{blob}")
    return None
