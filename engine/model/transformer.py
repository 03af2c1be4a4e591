"""The forward pass of every architecture that the native runtime runs, written once over the op set.

A model is an embedding, layers and an output. Layers may lie on several devices, one after another;
such a run of layers is a stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, groupby
from typing import Any, Generic

import numpy as np

from engine.gguf.file import GGUFFile
from engine.model.layers import Layer, LayerAt, Span
from engine.model.weights import Report, WeightLoader
from engine.spec.attention import LayerKind
from engine.spec.spec import ModelSpec
from kernels.ops import C, CacheKind, CacheShape, Floats, Ints, Ops, PassInput
from kernels.recurrent import StateShape, W, X
from kernels.sizes import PROMPT_CHUNK
from kernels.window import WindowPages

RECORDED = (2, 4)
"""Passes of so many tokens with the logits of each, whose calls a CPU records as it does those of one token:
drafts are verified with them. Their buffers stay: some tens of megabytes in all."""


class Stage(Generic[X, W, C]):
    """Layers that follow each other on one op set, with what they remember of a sequence."""

    def __init__(
        self, ops: Ops[X, W, C], load: WeightLoader[W], spec: ModelSpec, numbers: range
    ) -> None:
        self.ops = ops
        kinds = [spec.kind(number) for number in numbers]
        self.layers: Counter[LayerKind] = Counter(kinds)
        """So many of each kind."""
        self.memory: dict[LayerKind, Any] = {}
        """Of the kinds that there are: KV caches, and a recurrent state."""
        nope = spec.mla.nope if spec.mla else 0
        ropes = {kind: spec.attention(kind).rope.to_rope(nope) for kind in self.layers}
        places = {kind: count() for kind in self.layers}
        self._layers = [
            Layer(ops, load, spec, ropes[kind], LayerAt(number, kind, next(places[kind])))
            for number, kind in zip(numbers, kinds, strict=True)
        ]
        self.forward_one: Callable[[PassInput, Ints, int], X]
        """Its pass for one token, recorded."""
        self.forward_few: dict[int, Callable[[PassInput, Ints, int], X]] = {}
        """The same for so many tokens, all of whose rows are wanted."""

    def run(self, x: X, span: Span, last: bool) -> X:
        """Through all layers; only the last row through the last one when `last`."""
        for layer in self._layers[:-1]:
            x = layer.run(x, self.memory, span, last=False)
        return self._layers[-1].run(x, self.memory, span, last)


class Transformer(Generic[X, W, C]):
    """A decoder-only model bound to op sets, a KV cache of `pages` pages and bounded states in `slots` slots.

    `ops` is one op set, or one for every layer: layers next to each other that have the same are a
    stage, and activations go from stage to stage through the host. `kv` is how they keep the cache. A pass has
    at most `chunk` tokens.

    Recurrent states and windows of positions are bounded. They belong to one position and cannot be cut back:
    a pass begins at position 0 or where the one before it ended, or at that of a state that `load_state` brings
    back.
    """

    def __init__(
        self,
        file: GGUFFile,
        spec: ModelSpec,
        ops: Ops[X, W, C] | Sequence[Ops[X, W, C]],
        pages: int,
        page_size: int,
        report: Report = lambda done, total: None,
        *,
        kv: CacheKind = "f16",
        slots: int = 1,
        chunk: int = PROMPT_CHUNK,
    ) -> None:
        each = list(ops) if isinstance(ops, Sequence) else [ops] * spec.layers
        if len(each) != spec.layers:
            raise ValueError(f"{len(each)} op sets for {spec.layers} layers")
        self.spec, self.page_size, self.kv, self.slots = spec, page_size, kv, slots
        self.chunk = chunk
        self._position = 0
        load: WeightLoader[W] = WeightLoader(file, each[0], report)
        with active(each[0]):
            self._embedding = load.table("token_embd.weight")
        self.stages: list[Stage[X, W, C]] = []
        first = 0
        for _, same in groupby(each, key=id):
            numbers = range(first, first + len(list(same)))
            with active(each[first]):
                self.stages.append(Stage(each[first], load.on(each[first]), spec, numbers))
            first = numbers.stop
        if len({id(stage.ops) for stage in self.stages}) < len(self.stages):
            raise ValueError("layers on one op set are next to each other")
        load = load.on(each[-1])
        with active(each[-1]):
            self._norm = load.vector("output_norm.weight")
            self._output = load.matrix("token_embd.weight" if spec.tied else "output.weight")
        self._make_states()
        self.resize(pages)

    def _make_states(self) -> None:
        spec = self.spec
        for stage in self._having("recurrent"):
            assert spec.delta is not None
            state = StateShape(stage.layers["recurrent"], self.slots, spec.delta)
            with active(stage.ops):
                stage.memory["recurrent"] = stage.ops.recurrent_state(state)
        for stage in self._having("window"):
            size = stage.layers["window"], self.page_size, self.slots
            shape = spec.attention("window").window_cache(*size, self.kv, self.chunk)
            with active(stage.ops):
                stage.memory["window"] = stage.ops.kv_cache(shape)

    def _having(self, kind: LayerKind) -> list[Stage[X, W, C]]:
        return [stage for stage in self.stages if stage.layers[kind]]

    def resize(self, pages: int) -> None:
        """Empty caches of `pages` pages; what the old ones held is gone."""
        for stage in self.stages:
            stage.memory.pop("full", None)  # its memory comes first
        for stage in self._having("full"):
            with active(stage.ops):
                stage.memory["full"] = stage.ops.kv_cache(self._shape(stage, pages))
        for stage in self.stages:
            stage.forward_one = stage.ops.record(partial(self._pass, stage, last=True))
            if stage.ops.name == "cpu":
                every = partial(self._pass, stage, last=False)
                stage.forward_few = {count: stage.ops.record(every) for count in RECORDED}

    def save_state(self, slot: int) -> None:
        """Keep what is bounded, as it is at the present position, in `slot`, 1 .. slots - 1."""
        self._copy_state(0, slot, self._position)

    def load_state(self, slot: int, position: int) -> None:
        """Go on from what is in `slot`, which was kept at `position`."""
        self._copy_state(slot, 0, position)
        self._position = position

    def _copy_state(self, source: int, target: int, position: int) -> None:
        for stage in self._having("recurrent"):
            with active(stage.ops):
                stage.ops.copy_state(stage.memory["recurrent"], source, target)
        for stage in self._having("window"):
            with active(stage.ops):
                for ring, copy in self.window.of_copy(source or target, position):
                    pages = (copy, ring) if source else (ring, copy)
                    stage.ops.copy_page(stage.memory["window"], *pages)

    @property
    def window(self) -> WindowPages:
        """How windows lie in their caches."""
        return WindowPages(self.spec.attention("window").window, self.page_size, self.chunk)

    def _advance(self, start: int, count: int) -> None:
        """What is bounded must be that of `start`."""
        if not self.spec.keeps_state:
            return
        if start == 0:
            for stage in self._having("recurrent"):
                with active(stage.ops):
                    stage.ops.clear_state(stage.memory["recurrent"])
        elif start != self._position:
            raise ValueError(f"the state is that of {self._position}, not of {start}")
        self._position = start + count

    @property
    def is_recurrent(self) -> bool:
        """Whether there is a state that no pass can be taken back from."""
        return bool(self._having("recurrent"))

    def cut_back(self, position: int) -> None:
        """Go on at an earlier position within the last pass, behind its first token.

        A window's ring has room for `chunk` tokens beside all that the first of them sees, so that nothing which is
        still seen was overwritten. Raises `ValueError` for another position, and where a state is recurrent.
        """
        if not self.spec.keeps_state:
            return
        earliest = max(0, self._position - self.chunk) + 1
        if self.is_recurrent or not earliest <= position <= self._position:
            raise ValueError(f"the state of {self._position} cannot be cut back to {position}")
        self._position = position

    def try_stage(self, stage: Stage[X, W, C], count: int, pages: Ints, start: int) -> None:
        """One stage's pass of `count` tokens at `start`, alone: makes what such passes need.

        What is bounded is then of no position.
        """
        self._position = -1
        entry: Any = np.zeros(count, np.int32)
        if stage is not self.stages[0]:
            entry = np.ones((count, self.spec.hidden), np.float32)
        with active(stage.ops):
            stage.ops.to_numpy(self._pass(stage, entry, pages, start, last=True))

    def page_bytes(self, ops: Any) -> int:
        """Bytes of a page in all caches of the whole context on an op set."""
        stages = (stage for stage in self.stages if stage.ops is ops)
        return sum(self._shape(s, 1).bytes_per_position * self.page_size for s in stages)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one position in all caches of the whole context."""
        return sum(self._shape(stage, 1).bytes_per_position for stage in self.stages)

    def _shape(self, stage: Stage[X, W, C], pages: int) -> CacheShape:
        layers, kind = stage.layers["full"], self.kv
        return cache_shape(self.spec, pages, self.page_size, layers, kind)

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page in every layer that keeps the whole context."""
        for stage in self._having("full"):
            with active(stage.ops):
                stage.ops.copy_page(stage.memory["full"], source, target)

    def forward(self, tokens: Ints, pages: Ints, start: int) -> Floats:
        """Append `tokens` at position `start`; logits of the last one, (vocabulary,)."""
        logits: Floats = self._forward(tokens, pages, start, last=True)[0]
        return logits

    def forward_all(self, tokens: Ints, pages: Ints, start: int) -> Floats:
        """Like `forward`, but logits of every token: (n, vocabulary)."""
        return self._forward(tokens, pages, start, last=False)

    def _forward(self, tokens: Ints, pages: Ints, start: int, last: bool) -> Floats:
        self._advance(start, len(tokens))
        entry: PassInput = tokens
        for stage in self.stages:
            with active(stage.ops):
                few = None if last else stage.forward_few.get(len(tokens))
                if last and len(tokens) == 1:
                    x = stage.forward_one(entry, pages, start)
                elif few is not None:
                    x = few(entry, pages, start)
                else:
                    x = self._pass(stage, entry, pages, start, last)
                rows: Floats = stage.ops.to_numpy(x)
            entry = rows
        return rows

    def _pass(
        self, stage: Stage[X, W, C], entry: PassInput, pages: Ints, start: int, last: bool
    ) -> X:
        """One stage's: from tokens or rows to rows, or to logits from the last stage."""
        ops, final = stage.ops, stage is self.stages[-1]
        first: Any = entry
        if stage is self.stages[0]:
            x = ops.embed(self._embedding, first, self.spec.embedding_factor)
        else:
            x = ops.set_hidden(first)
        x = stage.run(x, Span(pages, start, len(entry)), last and final)
        if final:
            (x,) = ops.norm_linear(x, self._norm, self.spec.eps, [self._output])
            if self.spec.logit_cap:
                ops.soft_cap(x, self.spec.logit_cap)
        return x


def active(ops: Any) -> AbstractContextManager[None]:
    """A device of several is made the current one; other op sets have nothing to do."""
    make_active = getattr(ops, "active", None)
    return make_active() if make_active is not None else nullcontext()


def cache_shape(
    spec: ModelSpec,
    pages: int,
    page_size: int,
    layers: int | None = None,
    kind: CacheKind = "f16",
) -> CacheShape:
    """The KV cache of all layers that keep the whole context, or of so many: latents for MLA, else keys and values."""
    layers = spec.attention_layers if layers is None else layers
    if spec.mla is not None:
        key = spec.mla.kv_lora + spec.mla.rope
        return CacheShape(layers, pages, page_size, heads=1, key=key, value=0, kind=kind)
    heads, key, value = spec.kv_heads, spec.head_dim, spec.value_dim
    return CacheShape(layers, pages, page_size, heads, key, value, kind)


def page_table(pages: list[int]) -> Ints:
    """A sequence's pages as the ops want them."""
    return np.array(pages, dtype=np.int32)
