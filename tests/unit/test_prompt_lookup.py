"""Drafts come from what was said before, and are made only as far as they pay: arithmetic, no clock."""

import random
from collections.abc import Callable

import pytest

from engine.generation.draft_control import LOSS, START, DraftControl
from engine.generation.prompt_lookup import LONGEST_MATCH, History


def draft(tokens: list[int], most: int = 7) -> tuple[list[int], int]:
    history = History()
    history.begin(tokens)
    if not history.match:
        return [], 0
    assert history.expected == history.draft(1)[0]
    return history.draft(most), history.match


def test_the_last_place_of_four_tokens_decides_else_that_of_two() -> None:
    assert draft([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], most=2) == ([5, 1], 2)
    assert draft([0, 1, 2, 3, 4, 9, 2, 3, 5, 0, 1, 2, 3], most=2) == ([4, 9], 4)
    assert draft([1, 2, 3, 7, 1, 2, 3], most=1) == ([7], 3)
    assert draft([1, 2, 3]) == ([], 0)
    assert draft([5]) == draft([]) == ([], 0)


def test_what_repeats_itself_goes_on_behind_what_there_is() -> None:
    assert draft([9, 1, 2, 1, 2], most=5) == ([1, 2, 1, 2, 1], 2)
    assert draft([4, 4, 4], most=3) == ([4, 4, 4], 2)


def test_a_match_is_counted_only_so_far() -> None:
    words = list(range(40))
    assert draft([*words, 99, *words[:30]], most=3) == ([30, 31, 32], LONGEST_MATCH)


def test_a_match_that_goes_on_is_as_long_as_one_that_is_counted() -> None:
    rng = random.Random(4)
    history = History()
    tokens: list[int] = []
    for _ in range(3000):
        token = rng.randrange(3) if rng.random() < 0.3 else tokens[-17] if len(tokens) > 17 else 0
        tokens.append(token)
        history.append(token)
        if history.match:
            last = len(tokens) - 1
            assert history.match == history._matching(history._found, last)


def test_a_history_grows_with_the_reply_and_goes_on_in_the_next_turn() -> None:
    history = History()
    history.begin([1, 2, 3])
    for token in (7, 1, 2):
        history.append(token)
    assert (history.draft(2), history.match) == ([3, 7], 2)
    history.begin([1, 2, 3, 7, 1, 2, 8, 2, 3])
    assert (history.draft(2), history.match) == ([7, 1], 2)
    history.begin([1, 2, 3, 7, 1, 9, 5, 1, 2])
    assert (history.draft(2), history.match) == ([3, 7], 2), "another conversation"
    assert history.tokens == [1, 2, 3, 7, 1, 9, 5, 1, 2]
    for token in (3, 7, 1):
        history.later(token)
    assert history.match == 2
    history.catch_up()
    assert history.match == 5 and history.tokens[-3:] == [3, 7, 1]
    history.later(9)
    history.begin([1, 2, 3, 7, 1, 9, 5, 1, 2, 3, 7, 1, 9, 5])
    assert history.match == 7, "what waits is held too"


def play(
    control: DraftControl,
    cost: Callable[[int], float],
    right: Callable[[int], bool],
    tokens: int = 400,
    match: int = 6,
) -> float:
    """Time of a reply of so many tokens, in passes of one token; `right(i)`: whether a draft of token i is."""
    control.begin()
    spent, done = 0.0, 0
    while done < tokens:
        size = control.size(match, tokens - done)
        spent += cost(size)
        if size == 1:
            control.single(0.01 * cost(1))
        else:
            control.drafted(size, 0.01 * cost(size))
        for ahead in range(size):
            control.token(by_draft=size > 1)
            done += 1
            last = ahead == size - 1
            proved = right(done)
            control.foretold(match + (0 if last else ahead), proved)
            if not proved:
                break
    return spent


def dense(count: int) -> float:
    return 1.0 + 0.1 * (count - 1)


def experts(count: int) -> float:
    return 1.0 + 0.8 * (count - 1)


@pytest.mark.parametrize(
    "cost", [dense, experts, lambda n: 1.5 * n - 0.5, lambda n: 30.0 if n > 1 else 1.0]
)
@pytest.mark.parametrize("chance", [0.0, 0.1, 0.3, 0.6])
def test_no_text_and_no_cost_makes_a_reply_slower(
    cost: Callable[[int], float], chance: float
) -> None:
    rng, control = random.Random(1), DraftControl()
    for reply in range(6):
        spent = play(control, cost, lambda i: rng.random() < chance)
        # The very first pass may cost anything: it is not known yet.
        surprise = cost(8) if reply == 0 and cost(2) > 2 else 0.0
        assert spent <= 400 * (1 + LOSS) + START + 1e-6 + surprise


def test_a_text_that_turns_misleads_only_once() -> None:
    control = DraftControl()
    play(control, dense, lambda i: True)
    spent = play(control, dense, lambda i: i < 100, tokens=2000)
    assert spent < 2000
    assert control.size(6, 99) == 1, "what was right no more is not drafted"


def test_repetition_is_used_as_far_as_passes_pay() -> None:
    control = DraftControl()
    play(control, dense, lambda i: True)
    assert play(control, dense, lambda i: True) < 400 / 2.5
    assert control.size(6, 99) == 4
    assert control.size(6, 3) == 2, "not beyond the reply's end"
    assert control.size(6, 2) == 2 and control.size(6, 1) == 1


def test_a_mixture_of_experts_whose_passes_cost_as_much_as_their_tokens_backs_off() -> None:
    control, made = DraftControl(), []

    def cost(count: int) -> float:
        made.append(count)
        return 1.0 * count

    play(control, cost, lambda i: True)
    assert control.cost(2) == pytest.approx(2.0)
    made.clear()
    play(control, cost, lambda i: True, tokens=1000)
    assert sum(count > 1 for count in made) <= 1000 // 100, "cheap probes, and few"


def test_a_cost_that_has_fallen_is_found_out() -> None:
    control = DraftControl()
    play(control, lambda n: 1.6 * n if n > 1 else 1.0, lambda i: True, tokens=1000)
    assert play(control, dense, lambda i: True, tokens=4000) < 3000


def test_savings_are_what_single_tokens_would_have_taken() -> None:
    control = DraftControl()
    play(control, dense, lambda i: True)
    spent = play(control, dense, lambda i: True)
    assert control.saved_seconds == pytest.approx(0.01 * (400 - spent))
