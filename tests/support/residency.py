"""`python -m tests.support.residency [SEEDS]`: hit rates of slots for experts, ours beside others, on generated traces.

Everyone has the same slots and the same link: they are filled with what a policy wants after a prompt; then at most
`UPLOADS` experts a layer come after a token, and are there a token later. Ours is `kernels.hybrid.residency`. The
oracle is Belady's (1966), with bypass: it knows the trace to its end, so after each token it keeps of what it has and
of what was just computed those whose next use is nearest. Nobody but ours is asked for a gain before a copy.

Two more show how far foresight is from knowledge: who sees all that a router says, of experts too that it does not
choose, and who knows the very chances that the next token's experts are drawn with. Neither is an engine's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kernels.hybrid.residency import Residency
from kernels.ops import Ints
from tests.support.routing import SPREAD, TOPIC, TRACES, drift

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


class Listening:
    """The logits that a router gives every expert, filtered (Kalman, 1960) by the trace's own dynamics."""

    def __init__(self, said: np.ndarray) -> None:
        kept, noise = np.exp(-1 / TOPIC), np.pi**2 / 6  # of Gumbel's distribution
        spread, mean = SPREAD**2, np.zeros(said.shape[1:])
        self._means = np.empty_like(said)
        for time, row in enumerate(said):
            spread = kept**2 * spread + (1 - kept**2) * SPREAD**2
            gain = spread / (spread + noise)
            mean = kept * mean + gain * (row - np.euler_gamma - kept * mean)
            spread *= 1 - gain
            self._means[time] = mean

    def see(self, time: int, ids: Ints) -> None:
        return

    def worth(self, time: int) -> np.ndarray:
        worth: np.ndarray = self._means[time]
        return worth

    def may_come(self, ids: Ints) -> np.ndarray | bool:
        return True


class Knowing(Listening):
    """The logits that the trace is drawn with."""

    def __init__(self, logits: np.ndarray) -> None:
        self._means = logits


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
    """Print hit rates of one seed, and in brackets uploads a token and layer."""
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


def over_seeds(seeds: int, share: float = 0.1) -> None:
    """Print what part of the oracle's hits is reached on drifting traces of so many seeds."""
    for count in EXPERTS:
        parts: dict[str, list[float]] = {}
        for seed in range(1, seeds + 1):
            trace, slots = drift(PROMPT + TOKENS, LAYERS, count, TOP_K, seed), int(share * count)
            found = compare(trace.ids, count, slots)
            found["listening"] = play(trace.ids, count, slots, Listening(trace.said))
            found["knowing"] = play(trace.ids, count, slots, Knowing(trace.logits))
            for who, one in found.items():
                parts.setdefault(who, []).append(one.hits / found["oracle"].hits)
        for who, each in parts.items():
            words = f"{np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f}) of the oracle's hits"
            sys.stdout.write(f"{count:3} experts {share:4.0%} {who:9} {words}, {seeds} seeds\n")


if __name__ == "__main__":
    over_seeds(int(sys.argv[1])) if len(sys.argv) > 1 else table()
