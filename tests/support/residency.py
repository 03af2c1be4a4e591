"""`python -m tests.support.residency`: hit rates of slots for experts, ours beside others, on generated traces.

Everyone has the same slots and the same link: they are filled with what a policy wants after a prompt; then at most
`UPLOADS` experts a layer come after a token, and are there a token later. Ours is `kernels.hybrid.residency`. The
oracle is Belady's (1966), with bypass: it knows the trace to its end, so after each token it keeps of what it has and
of what was just computed those whose next use is nearest. Nobody but ours is asked for a gain before a copy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kernels.hybrid.residency import Residency
from kernels.ops import Ints
from tests.support.routing import TRACES

UPLOADS = 2
"""As many a layer and token move in a link of 25 GB/s while 12 ms of decoding pass, of 3 MB each in 48 layers."""
TOP_K, PROMPT, TOKENS, LAYERS = 8, 300, 2000, 2
EXPERTS, SHARES = (128, 256), (0.1, 0.25, 0.5)


class Played(NamedTuple):
    """A policy's part of the choices that had a slot, and uploads a token and layer."""

    hits: float
    uploads: float


class Policy(Protocol):
    """Says what each expert of a layer is worth."""

    def see(self, time: int, ids: Ints) -> None:
        """The choices of a token, ids (layers, top_k)."""
        ...

    def worth(self, time: int) -> np.ndarray:
        """After the token at `time`: (layers, experts)."""
        ...

    def may_come(self, ids: Ints) -> np.ndarray | bool:
        """Which experts may be uploaded after a token: (layers, experts)."""
        ...


class Counting:
    """Uses so far (LFU), or the time of the last one (LRU)."""

    def __init__(self, trace: Ints, experts: int, recent: bool) -> None:
        self._worth = np.zeros((trace.shape[1], experts))
        self._rows, self._recent = np.arange(trace.shape[1])[:, None], recent

    def see(self, time: int, ids: Ints) -> None:
        self._worth[self._rows, ids] = (
            time + 1 if self._recent else self._worth[self._rows, ids] + 1
        )

    def worth(self, time: int) -> np.ndarray:
        return self._worth

    def may_come(self, ids: Ints) -> np.ndarray | bool:
        return True


class Clairvoyant:
    """The sooner an expert is used again the more it is worth; only what was just used may come."""

    def __init__(self, trace: Ints, experts: int) -> None:
        tokens, layers, _ = trace.shape
        self._next = np.full((tokens + 2, layers, experts), 2 * tokens, np.int32)
        self._rows = np.arange(layers)[:, None]
        for time in range(tokens - 1, -1, -1):
            self._next[time] = self._next[time + 1]
            self._next[time, self._rows, trace[time]] = time

    def see(self, time: int, ids: Ints) -> None:
        return

    def worth(self, time: int) -> np.ndarray:
        worth: np.ndarray = -self._next[time + 1]
        return worth

    def may_come(self, ids: Ints) -> np.ndarray | bool:
        allowed = np.zeros(self._next.shape[1:], bool)
        allowed[self._rows, ids] = True
        return allowed


def play(trace: Ints, experts: int, slots: int, policy: Policy, prompt: int = PROMPT) -> Played:
    """A policy's hits behind a prompt of so many tokens."""
    layers = trace.shape[1]
    rows, hits, moved = np.arange(layers), 0, 0
    for time in range(prompt):
        policy.see(time, trace[time])
    here = np.zeros((layers, experts), bool)
    best = np.argsort(-policy.worth(prompt - 1), axis=1, kind="stable")[:, :slots]
    here[rows[:, None], best] = True
    coming = np.zeros_like(here)
    for time in range(prompt, len(trace)):
        ids = trace[time]
        hits += int(here[rows[:, None], ids].sum())
        here |= coming
        coming[:] = False
        policy.see(time, ids)
        worth = policy.worth(time)
        wanted = np.where(here | ~np.broadcast_to(policy.may_come(ids), here.shape), -np.inf, worth)
        least = np.where(here, worth, np.inf)
        for _ in range(UPLOADS):
            into, out = wanted.argmax(axis=1), least.argmin(axis=1)
            move = wanted[rows, into] > least[rows, out]
            come, go = (rows[move], into[move]), (rows[move], out[move])
            coming[come], here[go] = True, False
            wanted[come], least[go] = -np.inf, np.inf
            moved += int(move.sum())
    return Played(hits / trace[prompt:].size, moved / (len(trace) - prompt) / layers)


def play_ours(trace: Ints, experts: int, slots: int, prompt: int = PROMPT) -> Played:
    """The same, of the policy that the engine runs."""
    layers = trace.shape[1]
    residency = Residency(experts, [slots] * layers)
    for layer in range(layers):
        residency.chunk(layer, trace[:prompt, layer])
    for layer in residency.begin([0] * layers):
        residency.end(layer)
    moved = 0
    for ids in trace[prompt:]:
        residency.token(ids)
        for layer in range(layers):
            residency.end(layer)
        moved += sum(map(len, residency.begin([UPLOADS] * layers).values()))
    return Played(residency.hits / residency.lookups, moved / (len(trace) - prompt) / layers)


def compare(trace: Ints, experts: int, slots: int, prompt: int = PROMPT) -> dict[str, Played]:
    """All of them, by name."""
    others: dict[str, Policy] = {
        "LRU": Counting(trace, experts, recent=True),
        "LFU": Counting(trace, experts, recent=False),
        "oracle": Clairvoyant(trace, experts),
    }
    found = {"ours": play_ours(trace, experts, slots, prompt)}
    return found | {name: play(trace, experts, slots, one, prompt) for name, one in others.items()}


def table(experts: Sequence[int] = EXPERTS, shares: Sequence[float] = SHARES) -> None:
    """Print hit rates, and in brackets uploads a token and layer."""
    for name, make in TRACES.items():
        for count in experts:
            trace = make(PROMPT + TOKENS, LAYERS, count, TOP_K)
            for share in shares:
                found = compare(trace, count, int(share * count))
                cells = (f"{who} {one.hits:.3f} ({one.uploads:.2f})" for who, one in found.items())
                part = found["ours"].hits / found["oracle"].hits
                line = f"{name:17} {count:3} experts {share:4.0%} {'  '.join(cells)}"
                sys.stdout.write(f"{line}  ours / oracle {part:.3f}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    table()
