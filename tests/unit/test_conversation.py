"""How a conversation becomes the next prompt, and what it is called."""

from __future__ import annotations

from engine.errors import EngineError
from engine.protocol import Message
from ktchat.store.conversation import (
    EVERYTHING,
    TITLE_LENGTH,
    Compaction,
    Conversation,
    Turn,
    title_of,
)


def messages(*turns: Turn, system: str = "") -> list[tuple[str, str]]:
    conversation = Conversation(system=system, turns=list(turns))
    return [(message.role, message.content) for message in conversation.messages()]


def test_the_whole_conversation_goes_into_the_prompt() -> None:
    assert messages(
        Turn("one", "first", state="complete"),
        Turn("two", "second", state="complete"),
        Turn("three"),
        system="Be short.",
    ) == [
        ("system", "Be short."),
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", "second"),
        ("user", "three"),
    ]


def test_a_blank_system_message_is_none() -> None:
    assert Conversation(system=" \n", turns=[Turn("a")]).messages() == [Message("user", "a")]


def test_thinking_is_left_out() -> None:
    said = messages(Turn("one", "first", "secret thoughts", state="complete"), Turn("two"))
    assert said == [("user", "one"), ("assistant", "first"), ("user", "two")]


def test_a_stopped_reply_counts_as_far_as_it_came() -> None:
    for state in ("stopped", "interrupted"):
        said = messages(Turn("one", "half a", state=state), Turn("two"))  # type: ignore[arg-type]
        assert said == [("user", "one"), ("assistant", "half a"), ("user", "two")]


def test_a_message_without_any_reply_joins_the_next_one() -> None:
    said = messages(
        Turn("one", state="stopped"), Turn("two", "", "thought", state="interrupted"), Turn("three")
    )
    assert said == [("user", "one\n\ntwo\n\nthree")]


def test_turns_that_are_not_read_give_way_to_their_summary() -> None:
    turns = [Turn(text, f"reply to {text}", state="complete") for text in ("one", "two", "three")]
    turns[1].compaction, turns[2].compaction = Compaction(1), Compaction(2, "about one and two")
    conversation = Conversation(system="Be short.", turns=turns)
    system, first, *_ = conversation.messages()
    assert (system.role, first.role) == ("system", "user")
    assert "about one and two" in first.content and first.content.endswith("three")
    assert [m.content for m in Conversation(turns=turns[:2]).messages()] == ["two", "reply to two"]


def test_what_a_damaged_file_says_never_hides_the_last_message() -> None:
    assert messages(Turn("one"), Turn("two", compaction=Compaction(99))) == [("user", "two")]


def test_undoing_goes_back_one_choice_at_a_time_and_is_exact() -> None:
    turns = [Turn(text, f"reply to {text}", state="complete") for text in ("one", "two", "three")]
    conversation = Conversation(turns=turns)
    before = conversation.messages()
    turns[1].compaction, turns[2].compaction = Compaction(1), Compaction(2, "about one and two")
    conversation.choose_compaction(Compaction(3, "about all"))
    seen = []
    while (earlier := conversation.earlier_compaction) is not None:
        conversation.choose_compaction(earlier)
        seen.append(conversation.compaction)
    assert seen == [Compaction(2, "about one and two"), Compaction(1), EVERYTHING]
    assert conversation.messages() == before


def test_a_turn_that_failed_before_its_first_word_is_left_out() -> None:
    error = EngineError("It died")
    failed = Turn("lost", state="failed", error=error)
    assert failed.without_reply
    assert messages(failed, Turn("again")) == [("user", "again")]


def test_a_turn_that_failed_later_counts_as_far_as_it_came() -> None:
    failed = Turn("one", "half", state="failed", error=EngineError("It died"))
    assert not failed.without_reply
    assert messages(failed, Turn("two")) == [
        ("user", "one"),
        ("assistant", "half"),
        ("user", "two"),
    ]


def test_what_is_shown_is_safe_and_what_is_sent_is_raw() -> None:
    turn = Turn("\x1b[31mred", "\x1b]52;c;QQ==\x07reply", "\x9b1mthought", state="complete")
    assert (turn.prompt, turn.reply, turn.thinking) == ("red", "reply", "thought")
    assert messages(turn)[1] == ("assistant", "\x1b]52;c;QQ==\x07reply")


def test_a_title_is_the_first_line_that_says_something() -> None:
    assert title_of("\n\n  # What is a router?\nmore") == "What is a router?"
    assert title_of("```\ncode\n```") == "code"
    assert title_of(" \n\t\n") == ""
    assert title_of("a\x1b[31mb") == "ab"


def test_a_long_title_is_cut_between_words() -> None:
    title = title_of(
        "a fairly long first message about experts and where they are kept in memory while others are computed"
    )
    assert title == (
        "a fairly long first message about experts and where they are kept in memory while others are…"
    )
    assert len(title_of("x" * 500)) == TITLE_LENGTH


def test_a_session_without_title_has_words_for_it() -> None:
    assert Conversation().shown_title == "New session"
    assert Conversation(title="\x1b]0;x\x07").shown_title == "New session"
