"""What is known of a session's model file, for an export from which a reply can be reproduced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import KtchatError
from engine.remote.address import address_of

MAX_TEMPLATE = 1 << 20


def facts(path: str) -> dict[str, Any]:
    """The file's name, bytes, sha256 (as it is known: nothing is hashed), type, architecture and chat template;
    what is not known, or not there any more, is left out. Blocks shortly."""
    from engine.downloads.integrity import is_unchanged, record_of
    from engine.gguf.file import GGUFFile
    from ktchat.library.models import describe

    if (address := address_of(path)) is not None:
        return {"server": address.base}
    file = Path(path)
    known: dict[str, Any] = {"file": file.name} if path else {}
    if not path or not file.is_file():
        return known
    entry = describe(path)
    known |= {
        "bytes": entry.size,
        "quantisation": entry.quantisation,
        "architecture": entry.architecture,
    }
    record = record_of(file)
    if record is not None and is_unchanged(file, record):
        kind, _, digest = record.checksum.partition(":")
        known |= {kind: digest} if digest else {}
        known |= {"repository": record.repo, "commit": record.commit} if record.repo else {}
    try:
        with GGUFFile.open(file) as opened:
            template = opened.metadata.get("tokenizer.chat_template")
    except (KtchatError, OSError):
        return known
    if isinstance(template, str):
        known["template"] = template[:MAX_TEMPLATE]
    return known
