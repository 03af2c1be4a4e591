"""The disk behind a runtime's prefix cache: what a prompt finds there, and what is written between replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.disk_cache.chain import Layout
from engine.disk_cache.folder import CacheFolder
from engine.model.host_copies import HostCopies
from engine.runtimes.prefix_cache import PrefixCache
from engine.runtimes.restoring import Report, Restorer
from engine.runtimes.saving import Saver


class OnDisk:
    """One loaded model's. The thread that owns the runtime calls all but `stop`."""

    def __init__(
        self,
        cache: CacheFolder,
        layout: Layout,
        prefixes: PrefixCache,
        copies: HostCopies,
        budget: int | None,
    ) -> None:
        self._prefixes = prefixes
        self._restorer = Restorer(cache.model(layout.key), layout, prefixes, copies)
        self._saver = Saver(cache, layout, prefixes, copies, budget)
        self._said = False
        self._prompt = 0

    def restore(self, tokens: Sequence[int], report: Report) -> int:
        """Lengthen the sequence that was begun for the prompt `tokens` by what is on the disk; by how many.

        `report` is called with the tokens that are there, and says whether more are wanted.
        """
        self._saver.stop()
        self._prompt = len(tokens)
        current = self._prefixes.current
        return self._restorer.restore(current, tokens, report) if current is not None else 0

    def save(self, session: str) -> None:
        """The current sequence is due to be written, as one of this session."""
        if self._prefixes.current is not None:
            self._saver.add(session, self._prefixes.current, self._prompt)

    def listen(self, wake: Callable[[], None]) -> None:
        """`wake` is called, by another thread, when `advance` can do more."""
        self._saver.wake = wake

    def advance(self) -> bool:
        """Write a little of what is due, beside this thread; False: all is written."""
        return self._saver.advance()

    def finish(self, seconds: float) -> bool:
        """Write what is due, for so long at most; whether all is written."""
        return self._saver.finish(seconds)

    def stop(self) -> None:
        """Stop writing, soon. Any thread may call it."""
        self._saver.stop()

    def notice(self) -> str:
        """What the person should know, once; empty: nothing."""
        if self._said or not self._saver.trouble:
            return ""
        self._said = True
        return f"What was read is not kept on the disk, and is read again another time: {self._saver.trouble}"

    def close(self) -> None:
        """End the writer's thread; what is due is given up."""
        self._saver.close()
