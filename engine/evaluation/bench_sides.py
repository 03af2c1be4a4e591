"""The two that a benchmark times: our native runtime, and llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.evaluation.llama_cpp_reference import LlamaCppReference
from engine.runtimes.native import NativeRuntime
from kernels.ops import Floats


class Side(Protocol):
    """One of the two that are timed."""

    def start(self, prompt: Sequence[int]) -> None:
        """Forget the sequence; the next one begins with `prompt`, which is read by `forward`."""
        ...

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append tokens, a batch at most; logits of the last."""
        ...

    def resume(self, tokens: Sequence[int], length: int) -> int:
        """Forget all behind the first `length` of `tokens`, which go on; how many need not be read again."""
        ...


class OurSide:
    """The native runtime. Every start is a sequence whose first token the cache has not seen."""

    def __init__(self, runtime: NativeRuntime) -> None:
        self._runtime = runtime
        self.forward = runtime.forward

    def start(self, prompt: Sequence[int]) -> None:
        cached = self._runtime.begin(prompt)
        assert cached == 0, "a prompt in the prefix cache would be timed as if it were read"

    def resume(self, tokens: Sequence[int], length: int) -> int:
        return self._runtime.begin(tokens)


class BaselineSide:
    """llama.cpp."""

    def __init__(self, baseline: LlamaCppReference) -> None:
        self._baseline = baseline
        self.forward = baseline.forward

    def start(self, prompt: Sequence[int]) -> None:
        self._baseline.clear()

    def resume(self, tokens: Sequence[int], length: int) -> int:
        if self._baseline.truncate(length):
            return length
        self._baseline.clear()  # a recurrent state cannot be cut back
        return 0
