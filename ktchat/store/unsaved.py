"""A store that keeps nothing: for a conversation of which nothing is to stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ktchat.attachments.attachment import Attachment, Draft
from ktchat.store.statements import Rows
from ktchat.store.store import Store


class UnsavedStore(Store):
    """Takes what is saved and forgets it; no file is made or opened."""

    keeps: ClassVar[bool] = False

    def save(
        self,
        rows: Iterable[Rows],
        drafts: Iterable[tuple[str, Draft]] = (),
        texts: Iterable[tuple[str, Attachment]] = (),
    ) -> None:
        """Forget it."""

    def claim(self, session: str) -> bool:
        """There is nothing to be held."""
        return True
