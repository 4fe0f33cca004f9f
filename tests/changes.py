"""Any changes of a conversation that there can be, also such as only a damaged file has."""

from __future__ import annotations

from hypothesis import strategies as st

from hermes_cli.chat.conversation import (
    ChatOptions,
    MessageAdded,
    OptionsChanged,
    SummaryAdded,
    SummaryRemoved,
    TitleChanged,
    TurnsDropped,
    TurnUsage,
)
from hermes_cli.prompting.messages import Message, ToolCall

# Halves of characters, as a broken program may return them, and what means something in JSON and in lines.
_NASTY = '\ud800\ud83d\ude00\udfff"\\\n\r\u2028\0{},'
TEXT = st.text(max_size=30) | st.text(st.sampled_from(_NASTY), max_size=8)
SOME_TEXT = TEXT | st.none()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
CALLS = st.builds(ToolCall, TEXT, st.dictionaries(TEXT, JSON, max_size=3), TEXT)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    SOME_TEXT,
    st.lists(CALLS, max_size=2).map(tuple),
    SOME_TEXT,
    SOME_TEXT,
    SOME_TEXT,
)
USAGES = st.builds(TurnUsage, st.integers(0, 2**40), prompt_seconds=st.floats(0, 1e6))
MESSAGES_ADDED = st.builds(MessageAdded, MESSAGES, st.floats(0, 4e9), SOME_TEXT, USAGES | st.none(), st.booleans())
OPTIONS = st.builds(
    ChatOptions,
    SOME_TEXT,
    st.booleans() | st.none(),
    st.integers(0, 9) | st.none(),
    st.booleans() | st.none() | st.dictionaries(TEXT, JSON, max_size=2),
    st.dictionaries(TEXT, st.integers() | st.floats(0, 2), max_size=2),
    st.integers(0, 9) | st.none(),
    st.lists(TEXT, max_size=2).map(tuple),
    st.booleans(),
)
CHANGES = st.one_of(
    MESSAGES_ADDED,
    st.builds(TurnsDropped, st.integers(-2, 4)),
    st.builds(SummaryAdded, TEXT, st.integers(-2, 4)),
    st.just(SummaryRemoved()),
    st.builds(OptionsChanged, OPTIONS),
    st.builds(TitleChanged, TEXT),
)
