"""Ten kinds of text replayed on a simulated clock: what drafts gain, and that none of them loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.common.json_files import assets_folder
from engine.errors import UnsupportedModelError
from engine.evaluation import disturbance, lookup
from engine.evaluation.lookup import bench_lookup, texts
from engine.generation.prompt_lookup import History
from engine.generation.speculation import Speculation
from engine.gguf.file import GGUFFile
from engine.machine.probes.cpu_time import CpuTime
from engine.text.tokenizer import Part, Tokenizer
from kernels.ops import Floats
from ktchat.cli import bench_lookup as bench_lookup_words
from ktchat.cli import main
from tests.support.fake_runtime import eager
from tests.support.tiny import tiny_model

LEAST = 0.98
KINDS = [
    *("prose", "code edits", "quotations", "JSON", "lists", "translations"),
    *("tables", "maths", "dialogue", "Chinese"),
]
COSTS: dict[str, Callable[[int], float]] = {
    "dense": lambda count: 1.0 + 0.08 * (count - 1),
    "small": lambda count: 1.0 + 0.25 * (count - 1),
    "experts": lambda count: 1.0 + 0.7 * (count - 1),
    "hopeless": lambda count: 1.2 * count,
}


class Clocked:
    """A runtime whose passes take what they cost."""

    def __init__(self, cost: Callable[[int], float]) -> None:
        self.cost, self.now = cost, 0.0
        self.length = 0
        self.passes: list[int] = []

    def forward(self, tokens: Sequence[int]) -> Floats:
        return self.forward_all(tokens)[0]

    def forward_all(self, tokens: Sequence[int]) -> Floats:
        self.passes.append(len(tokens))
        self.length += len(tokens)
        self.now += 1.0 if len(tokens) == 1 else self.cost(len(tokens))
        return np.zeros((len(tokens), 1), np.float32)

    def alike(self, position: int) -> int:
        return 32 - position % 32

    def cut_back(self, count: int) -> None:
        self.length -= count


class Slow(History):
    """Looking takes a twelfth of a token, as it does with a very small model."""

    def __init__(self, runtime: Clocked) -> None:
        super().__init__()
        self._runtime = runtime

    def catch_up(self) -> None:
        self._runtime.now += 0.08
        super().catch_up()


@pytest.fixture(scope="module")
def replays() -> list[tuple[str, list[int], list[int]]]:
    path = assets_folder() / "ktchat-guide.gguf"
    with GGUFFile.open(path) as file:
        tokenizer = Tokenizer.open(path, file)
    found = [
        (
            text.kind,
            *(tokenizer.encode_more([Part(said, False)]) for said in (text.prompt, text.reply)),
        )
        for text in texts()
    ]
    tokenizer.close()
    return found


@pytest.mark.parametrize("name", COSTS)
def test_no_kind_of_text_is_slower_than_one_by_one(
    name: str, replays: list[tuple[str, list[int], list[int]]]
) -> None:
    assert [kind for kind, _, _ in replays] == KINDS
    runtime = Clocked(COSTS[name])
    ahead = Speculation(runtime, lambda token: False, clock=lambda: runtime.now)
    ratios = {}
    for turn in range(2):
        for kind, prompt, reply in replays:
            runtime.length, began = 0, runtime.now
            ahead.begin(prompt)
            for place, token in enumerate(reply):
                ahead.forward(token, len(reply) - place)
            ahead.end()
            assert runtime.length == len(reply)
            spent = runtime.now - began
            assert ahead.saved_seconds == pytest.approx(len(reply) - spent)
            ratios[kind, turn] = len(reply) / spent
    assert min(ratios.values()) >= LEAST, ratios
    if name in ("dense", "small"):
        assert ratios["code edits", 1] > 1.6 and ratios["quotations", 1] > 1.3
    if name == "hopeless":
        assert sum(count > 1 for count in runtime.passes) < len(runtime.passes) / 50


def test_looking_for_drafts_is_in_the_account_too(
    replays: list[tuple[str, list[int], list[int]]],
) -> None:
    runtime = Clocked(COSTS["dense"])
    ahead = Speculation(runtime, lambda token: False, clock=lambda: runtime.now)
    ratios = {}
    for turn in range(2):
        for kind, prompt, reply in replays:
            ahead._history = Slow(runtime)
            ahead.begin(prompt)
            began = runtime.now
            for place, token in enumerate(reply):
                ahead.forward(token, len(reply) - place)
            ahead.end()
            assert ahead._history.tokens + ahead._history._waiting == prompt + reply
            ratios[kind, turn] = len(reply) / (runtime.now - began)
    assert min(ratios.values()) >= LEAST and ratios["code edits", 1] > 1.4, ratios


def test_a_draft_stops_where_a_turn_ends() -> None:
    runtime = Clocked(lambda count: 1.0)
    ahead = eager(runtime, lambda token: token == 0)
    ahead.begin([1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4])
    for token in (5, 6, 7, 8, 9):
        ahead.forward(token, 99)
    assert runtime.passes == [4, 1], "5 6 7 8, and 9 before the end"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbance, "read_bandwidth", lambda threads: 10.0)
    monkeypatch.setattr(disturbance, "cpu_time", lambda: CpuTime(0.0, 0.0, 0.0))
    shortened = [lookup.Text(text.kind, text.prompt[:80], text.reply[:60]) for text in texts()]
    monkeypatch.setattr(lookup, "REST", 0.0)
    monkeypatch.setattr(lookup, "texts", lambda: shortened)


@pytest.mark.usefixtures("quiet")
def test_the_bench_replays_every_kind_both_ways(models: Path) -> None:
    result = bench_lookup(tiny_model("qwen3moe", models), threads=1)
    figures = result.to_dict()
    assert [kind["kind"] for kind in figures["kinds"]] == KINDS
    assert all(kind["plain_tok_s"] > 0 < kind["lookup_tok_s"] for kind in figures["kinds"])
    assert figures["hour"].startswith("A quiet hour") and figures["least_ratio"] > 0
    shown = "\n".join(bench_lookup_words.table(result))
    assert all(kind in shown for kind in KINDS) and "The least ratio is" in shown


def test_options_that_say_nothing_of_it_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for extra in (["--vs", "llama.cpp"], ["--follow-up", "3"], ["--device", "gpu"]):
        assert main(["bench", "-m", "a.gguf", "--speculation", *extra]) == 2
        assert "Leave out" in capsys.readouterr().err


def test_a_model_with_a_recurrent_state_takes_no_drafts(models: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="recurrent state cannot be cut back"):
        bench_lookup(tiny_model("qwen3next", models), threads=1)
