"""A conversation is what happened in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.chat.conversation import SUMMARY_HEADING, Change, ChatOptions, Conversation
from hermes_cli.prompting.messages import Message


def spoken(*texts: str) -> tuple[Conversation, list[Change]]:
    changes: list[Change] = []
    conversation = Conversation(on_change=changes.append)
    for at, text in enumerate(texts):
        conversation.add(Message("assistant" if at % 2 else "user", text))
    return conversation, changes


def contents(conversation: Conversation) -> list[str | None]:
    return [message.content for message in conversation.messages]


def test_taking_back_and_saying_otherwise() -> None:
    conversation, _ = spoken("a", "b", "c", "d")
    assert conversation.last_user_index == 2
    conversation.truncate(2)
    assert contents(conversation) == ["a", "b"]


def test_a_summary_stands_for_what_it_covers_and_can_be_taken_back() -> None:
    conversation, _ = spoken("a", "b", "c", "d")
    conversation.set_options(ChatOptions(system="Be brief."))
    conversation.compact("a and b", 2)
    assert contents(conversation) == ["c", "d"]
    assert conversation.prompt_options.system == f"Be brief.\n\n{SUMMARY_HEADING}a and b"
    assert conversation.options.system == "Be brief."
    assert conversation.expand()
    assert contents(conversation) == ["a", "b", "c", "d"]
    assert not conversation.expand()


def test_a_second_summary_stands_for_the_first_one_too() -> None:
    conversation, _ = spoken("a", "b", "c", "d")
    conversation.compact("1", 2)
    conversation.compact("2", 4)
    assert contents(conversation) == []
    conversation.expand()
    assert contents(conversation) == ["c", "d"]


def test_going_back_behind_a_summary_takes_it_back() -> None:
    conversation, _ = spoken("a", "b", "c", "d")
    conversation.compact("1", 2)
    conversation.truncate(1)
    assert conversation.summary is None
    assert contents(conversation) == ["a"]


def test_what_changes_nothing_is_no_change() -> None:
    conversation, changes = spoken("a")
    conversation.set_options(conversation.options)
    conversation.truncate(5)
    assert len(changes) == 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(max_size=5)),
        st.tuples(st.just("back"), st.integers(0, 8)),
        st.tuples(st.just("compact"), st.integers(1, 8)),
        st.tuples(st.just("expand"), st.none()),
        st.tuples(st.just("behave"), st.text(max_size=3)),
        st.tuples(st.just("name"), st.text(max_size=3)),
    ),
    max_size=20,
)


@given(ACTIONS)
def test_the_same_changes_make_the_same_conversation(actions: list[tuple[str, object]]) -> None:
    changes: list[Change] = []
    conversation = Conversation(on_change=changes.append)
    for what, value in actions:
        if what == "say":
            conversation.add(Message("user", str(value)))
        elif what == "back" and isinstance(value, int):
            conversation.truncate(value)
        elif what == "compact" and isinstance(value, int):
            conversation.compact("s", value)
        elif what == "expand":
            conversation.expand()
        elif what == "behave":
            conversation.set_options(ChatOptions(system=str(value)))
        else:
            conversation.set_title(str(value))
        summary = conversation.summary
        assert summary is None or 0 < summary.count <= len(conversation.entries)
    again = Conversation.replay(changes)
    assert (again.entries, again.options, again.title) == (
        conversation.entries,
        conversation.options,
        conversation.title,
    )
    assert (again.summary, again.messages) == (conversation.summary, conversation.messages)
