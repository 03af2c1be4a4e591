"""The index of words, brought up to date beside everything else: after a start, of an old or a repaired store."""

from __future__ import annotations

import asyncio
import contextlib

from engine.errors import KtchatError
from ktchat.store.store import Store

PAUSE_SECONDS = 0.05
"""Between two steps, in which messages are saved and sessions opened."""


async def index(store: Store) -> None:
    """Put into the index what is not there yet; a store that cannot be written is left as it is."""
    with contextlib.suppress(KtchatError):
        await store.call(store.settle_interrupted)
        await store.call(store.search.renew_if_it_differs)
        while await store.call(store.search.add_more):
            await asyncio.sleep(PAUSE_SECONDS)
