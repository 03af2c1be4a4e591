"""Our own runtime: the transformer over an op set, a paged KV cache, prefix reuse.

One thread owns a runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.disk_cache.chain import Layout
from engine.disk_cache.folder import CacheFolder
from engine.disk_cache.identity import model_key
from engine.gguf.file import GGUFFile
from engine.model.host_copies import HostCopies
from engine.model.transformer import RECORDED, Transformer, page_table
from engine.model.weights import Report
from engine.plan.footprint import state_slots
from engine.plan.placement import Placement
from engine.protocol import Computed
from engine.runtimes.base import CancelFlag
from engine.runtimes.expert_use import ExpertUse
from engine.runtimes.on_disk import OnDisk
from engine.runtimes.prefix_cache import PrefixCache
from engine.runtimes.snapshots import CachedSequence, Snapshots
from engine.spec.spec import ModelSpec
from kernels import sizes
from kernels.cancelling import Heeds
from kernels.ops import CacheKind, Floats, Ints
from kernels.timing import Rows, Watched

PAGE_SIZE = sizes.PAGE_SIZE
"""Positions in a KV page."""

CHUNK = sizes.PROMPT_CHUNK
"""Tokens prefilled at once: enough to reuse each expert's weights, few enough to cancel soon."""

_BLOCK = 32
"""Positions (kernels/cpu/src/attention.cpp)."""

_Pass = Callable[[Ints, Ints, int], Floats]


class NativeRuntime:
    """A loaded model that answers one sequence at a time and remembers the earlier ones."""

    name = "native"

    def __init__(
        self,
        model: Transformer[Any, Any, Any],
        context: int,
        pages: int,
        op_sets: Sequence[Any],
        device: Computed = "CPU",
        chunk: int | None = None,
        placement: Placement | None = None,
    ) -> None:
        """`model` has caches of `pages` pages; `op_sets` are closed with the runtime, in this order. `chunk` None: as
        many tokens of a prompt at once as the model takes. `placement` None: the CPU computes alone."""
        self._model, self._op_sets = model, op_sets
        self._copies = HostCopies(model)
        snapshots = None
        if model.spec.keeps_state:
            snapshots = Snapshots(model.slots, model.save_state, model.load_state)
        self._prefixes = PrefixCache(pages, PAGE_SIZE, model.copy_page, snapshots)
        self._sequence = CachedSequence()
        self._flag: CancelFlag | None = None
        each: list[Any] = [stage.ops for stage in model.stages]
        self._heeds: list[Heeds] = each if all(isinstance(ops, Heeds) for ops in each) else []
        self._stops: frozenset[int] = frozenset()
        self._prompt = 0
        self.expert_use = ExpertUse(model.spec, each) if model.spec.moe_layers else None
        """None: there are no experts."""
        self.device: Computed = device
        self.placement, self.kv = placement, model.kv
        self.context = context
        self.chunk = min(model.chunk if chunk is None else chunk, context)
        self._every = max(CHUNK, self.chunk // CHUNK * CHUNK)
        """Tokens from one kept state of a prompt to the next: closer ones would cost more passes than they save."""
        self.vocab_size = model.spec.vocab
        self.weights_bytes = model.spec.weights_bytes
        self.kv_bytes_per_token = model.kv_bytes_per_token

    @classmethod
    def load(
        cls,
        file: GGUFFile,
        spec: ModelSpec,
        context: int,
        threads: int | None = None,
        report: Report = lambda done, total: None,
        kv: CacheKind = "f16",
    ) -> NativeRuntime:
        """The model in `file` on this machine's CPU; `threads` None takes its physical cores."""
        from kernels.cpu import CpuOps

        ops, pages = CpuOps(threads, pin=True), pages_for(context)
        return cls(
            Transformer(file, spec, ops, pages, PAGE_SIZE, report, kv=kv, slots=state_slots(spec)),
            context,
            pages,
            [ops],
        )

    def watch_for(self, flag: CancelFlag) -> None:
        """Give up the pass of a prompt soon after `flag` is raised, where the CPU alone computes."""
        self._flag = flag

    def begin(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> int:
        """Make the sequence current that shares most with `tokens`; how many tokens it shares."""
        self._sequence = self._prefixes.begin(tokens)
        self._stops, self._prompt = frozenset(marks), len(tokens)
        return len(self._sequence.tokens)

    def behind(self, tokens: Sequence[int]) -> list[list[int]]:
        """What cached sequences that begin with these tokens hold behind them, the last used first."""
        return self._prefixes.behind(tokens)

    def cached(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` are cached from their first on."""
        return self._prefixes.cached(tokens)

    @property
    def logits(self) -> Floats | None:
        """Those behind the current sequence's last token, where they were kept."""
        kept = self._sequence.snapshots.get(len(self._sequence.tokens))
        return kept.logits if kept is not None else None

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append up to `chunk` tokens to the current sequence; logits of the last, (vocabulary,)."""
        if not self._model.spec.keeps_state:
            return self._forward(tokens)
        done = 0
        while True:
            count = self._until_stop(len(tokens) - done)
            logits = self._forward(tokens[done : done + count])
            done += count
            self._keep_state(logits)
            if done == len(tokens):
                return logits

    @property
    def can_cut_back(self) -> bool:
        """Not where a state is recurrent, nor on a GPU, whose captured graphs are of one token."""
        return self.device == "CPU" and not self._model.is_recurrent

    def forward_all(self, tokens: Sequence[int]) -> Floats:
        """Like `forward`, but logits of every token, (n, vocabulary). No state is kept meanwhile."""
        return self._forward(tokens, self._model.forward_all)

    def alike(self, position: int) -> int:
        """Tokens of a pass from there whose sums are to the bit those of tokens one by one.

        Attention cuts the positions at multiples of 32; a window's begin in another block behind the last of one.
        """
        left = _BLOCK - position % _BLOCK
        return max(1, left - 1) if self._model.spec.windowed is not None else left

    def warm_up(self) -> None:
        """Record the passes that verify drafts, before the first of them is waited for."""
        for count in RECORDED:
            self.begin([0])
            self.forward_all(range(count))
            self._prefixes.empty(self._sequence)

    def cut_back(self, count: int) -> None:
        """Forget the last `count` tokens, which the last `forward_all` appended: not all of them."""
        length = len(self._sequence.tokens) - count
        self._model.cut_back(length)
        if self.expert_use is not None:
            self.expert_use.cut_back(count)
        self._prefixes.cut_back(self._sequence, length)

    def _forward(self, tokens: Sequence[int], run: _Pass | None = None) -> Floats:
        sequence = self._sequence
        self._prefixes.reserve(sequence, len(tokens))
        rows = np.asarray(tokens, dtype=np.int32)
        try:
            with self._heeding(1 if run is not None else len(tokens)):
                run = run or self._model.forward
                logits = run(rows, page_table(sequence.pages), len(sequence.tokens))
        except BaseException:
            if self._model.spec.keeps_state:
                self._prefixes.empty(sequence)  # the state is of no position any more
            raise
        sequence.tokens.extend(tokens)
        if self.expert_use is not None:
            self.expert_use.count(len(tokens))
        return logits

    @contextmanager
    def _heeding(self, tokens: int) -> Iterator[None]:
        """Have a prompt's pass given up when the flag is raised; a token's, with drafts or not, is soon over anyway."""
        heeding = self._heeds if tokens > 1 and self._flag is not None else []
        for ops in heeding:
            ops.heed(self._flag)
        try:
            yield
        finally:
            for ops in heeding:
                ops.heed(None)

    def _until_stop(self, most: int) -> int:
        """Tokens up to the next position whose state is kept."""
        here = len(self._sequence.tokens)
        stops = [stop - here for stop in self._stops if stop > here]
        return min(most, self._every - here % self._every, *stops)

    def _keep_state(self, logits: Floats) -> None:
        """At marks, at the end of every whole chunk of a prompt, and at its end, with the logits there."""
        here = len(self._sequence.tokens)
        if here == self._prompt:
            self._prefixes.keep_state(self._sequence, logits.copy())
        elif here in self._stops or (here < self._prompt and here % self._every == 0):
            self._prefixes.keep_state(self._sequence)

    def on_disk(self, cache: CacheFolder, files: Sequence[Path], budget: int | None) -> OnDisk:
        """The sequences' way to `cache` and back; `files` are the model's. Raises `OSError`."""
        layout = Layout(
            key=model_key(files, self._copies.layout),
            page_size=PAGE_SIZE,
            page_bytes=self._copies.page_bytes,
            state_bytes=self._copies.state_bytes,
            logits_bytes=4 * self.vocab_size,
            keeps_state=self._model.spec.keeps_state,
        )
        return OnDisk(cache, layout, self._prefixes, self._copies, budget)

    def watch(self, rows: Rows | None) -> None:
        """The times of all work go to `rows` from now on; None ends that."""
        for stage in self._model.stages:
            assert isinstance(stage.ops, Watched), (
                f"{stage.ops.name} does not say how long ops take"
            )
            stage.ops.watch(rows)

    def close(self) -> None:
        """Free everything; stop the op sets' threads."""
        for ops in self._op_sets:
            ops.close()


def pages_for(context: int) -> int:
    """Pages of a context, and one more, so that a branch can copy its partly filled page."""
    return -(-context // PAGE_SIZE) + 1
