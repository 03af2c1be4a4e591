"""What goes with a message: a file's text, a PDF's, a folder's list, a long paste; and a message that is not sent yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from ktchat.common.text import one_line, sanitise

Kind = Literal["text", "pdf", "folder", "paste"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_CHARACTERS = 4_000_000
"""Of one attachment: about a million tokens, the longest context that there is."""
MAX_ATTACHMENTS = 20
"""Of one message."""
PASTE_NAME = "pasted text"

_TITLES: dict[Kind, str] = {
    "text": "File: {}",
    "pdf": "Text of the PDF: {}",
    "folder": "Files in the folder: {}",
    "paste": "Pasted text:",
}
_RUN = re.compile(r"`{3,}")


@dataclass(frozen=True)
class Attachment:
    """A text with a name. Both are safe to draw, and the text is what the model reads."""

    name: str
    text: str
    kind: Kind = "text"
    sha256: str = ""
    """Of the file's bytes; of a folder's list or a paste: of the text."""
    size: int = 0
    """Bytes of the file, or of the text."""
    path: str = field(default="", compare=False)
    """Where the file was; empty for what was kept in a session."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text: by it the text is kept."""
        return digest_of(self.text)

    @property
    def lines(self) -> int:
        """Lines of the text."""
        return self.text.count("\n") + (not self.text.endswith("\n")) if self.text else 0

    @property
    def block(self) -> str:
        """What stands in the message: a title and the text between fences that do not occur in it."""
        longest = max((len(run) for run in _RUN.findall(self.text)), default=2)
        fence = "`" * (longest + 1)
        title = _TITLES[self.kind].format(self.name)
        return f"{title}\n{fence}\n{self.text.rstrip(chr(10))}\n{fence}"


def digest_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    import hashlib  # it loads a large library: not before the first frame

    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def pasted(text: str) -> Attachment:
    """A long paste. What is longer than `MAX_CHARACTERS` is cut."""
    text = sanitise(text[:MAX_CHARACTERS])
    size = len(text.encode("utf-8", "replace"))
    return Attachment(PASTE_NAME, text, "paste", digest_of(text), size)


def shown_name(path: str) -> str:
    """The last part of a path, safe to draw on one line."""
    return one_line(path.rstrip("/").rpartition("/")[2] or path, 80)


def with_blocks(text: str, attachments: Sequence[Attachment]) -> str:
    """A message as the model reads it: what is attached, in order, then what was written."""
    blocks = [attachment.block for attachment in attachments]
    return "\n\n".join([*blocks, text] if text.strip() or not blocks else blocks)


@dataclass(frozen=True)
class Draft:
    """A message that is not sent yet."""

    text: str = ""
    attachments: tuple[Attachment, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.text.strip() or self.attachments)

    @property
    def message(self) -> str:
        """As the model would read it."""
        return with_blocks(self.text, self.attachments)
