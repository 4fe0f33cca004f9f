"""Summing up, and what fills the context."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat_rig import calling, scripted_backend, talking
from fake_engine import LOADED, FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_cli.chat.context_usage import INSTRUCTION, KEPT_QUESTIONS, compactable, context_usage, summarize
from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.errors import ContextFullError, HermesError, UsageError
from hermes_cli.event_loop import EventLoop
from hermes_cli.prompting.messages import Message, ToolCall

SMALL = replace(LOADED, context=1024)


def spoken(count: int, length: int = 10) -> Conversation:
    conversation = Conversation()
    for at in range(count):
        conversation.add(Message("user", f"question {at} " + "x" * length))
        conversation.add(Message("assistant", f"answer {at} " + "y" * length))
    return conversation


def read(engine: FakeEngine) -> list[str]:
    return ["".join(map(str, request.prompt)) for request in engine.requests]


def test_the_last_questions_stay_as_they_are() -> None:
    conversation = spoken(5)
    assert compactable(conversation) == 2 * (5 - KEPT_QUESTIONS)
    conversation.compact("s", compactable(conversation))
    with pytest.raises(UsageError, match="nothing to sum up"):
        compactable(conversation)


@pytest.mark.parametrize("count", range(KEPT_QUESTIONS + 1))
def test_a_short_conversation_needs_no_summary(count: int) -> None:
    with pytest.raises(UsageError, match="nothing to sum up"):
        compactable(spoken(count))


def test_the_model_reads_what_it_sums_up_and_what_was_summed_up_before() -> None:
    engine = FakeEngine([["All", " of it."]])
    conversation = spoken(4)
    conversation.compact("earlier things", 2)
    with EventLoop() as loop:
        assert loop.run(summarize(scripted_backend(engine=engine), conversation, 6)) == "All of it."
    (prompt,) = read(engine)
    assert "earlier things" in prompt
    assert "question 0" not in prompt
    assert prompt.index("question 1") < prompt.index("answer 2") < prompt.index(INSTRUCTION)
    assert "question 3" not in prompt


def test_calls_and_results_are_told() -> None:
    engine = FakeEngine([["s"]])
    conversation = Conversation()
    conversation.add(Message("user", "Weather?"))
    conversation.add(Message("assistant", None, (ToolCall("get_weather", {"city": "Oslo"}),)))
    conversation.add(Message("tool", "rain", tool_call_id="1", name="get_weather"))
    with EventLoop() as loop:
        loop.run(summarize(scripted_backend(engine=engine), conversation, 3))
    assert 'get_weather(city="Oslo")' in read(engine)[0]
    assert "Result of a tool: rain" in read(engine)[0]


def test_what_is_too_long_is_summed_up_in_parts() -> None:
    engine = FakeEngine([["one"], ["two"], ["three"], ["four"], ["all"]], loaded=SMALL)
    conversation = spoken(6, length=120)
    with EventLoop() as loop:
        summary = loop.run(summarize(scripted_backend(engine=engine, loaded=SMALL), conversation, 12))
    answered = [prompt for prompt in read(engine) if len(prompt) < SMALL.context]
    assert len(answered) > 1
    assert summary
    for at in range(6):  # nothing is left out
        assert sum(f"question {at}" in prompt for prompt in answered) == 1
        assert sum(f"answer {at}" in prompt for prompt in answered) == 1
    assert ["Summary of what was before" in prompt for prompt in answered] == [False] + [True] * (len(answered) - 1)


def test_a_message_longer_than_the_context_is_an_error() -> None:
    engine = FakeEngine([["s"]], loaded=SMALL)
    with EventLoop() as loop, pytest.raises(ContextFullError):
        loop.run(summarize(scripted_backend(engine=engine, loaded=SMALL), spoken(1, length=2000), 2))


def test_no_summary_is_an_error() -> None:
    with EventLoop() as loop, pytest.raises(HermesError, match="wrote no summary"):
        loop.run(summarize(scripted_backend([[" "]]), spoken(3), 2))


WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=30)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), max_size=4), st.none() | WORDS, st.booleans())
def test_the_parts_of_a_prompt_are_all_of_it(turns: list[tuple[str, str]], system: str | None, tools: bool) -> None:  # noqa: FBT001 - hypothesis
    with talking(["s"], now=lambda: "noon") as (agent, _):
        agent.offers_tools = tools
        conversation = agent.conversation
        conversation.set_options(ChatOptions(system=system))
        for question, answer in turns:
            conversation.add(Message("user", question))
            conversation.add(Message("assistant", answer))
        if len(turns) > 1:
            conversation.compact("in short", 2)
        loop = agent._event_loop  # noqa: SLF001 - the one there is
        named = loop.run(context_usage(agent.backend, conversation, agent.schemas))
        counted = loop.run(
            agent.backend.count_tokens(
                conversation.messages or [Message("user", "")], agent.schemas, conversation.prompt_options
            )
        )
    assert sum(named.values()) == counted
    shown = turns[1:] if len(turns) > 1 else turns
    letters = sum(len(question.strip()) for question, _ in shown)
    assert named.get("your messages", 0) >= letters  # one token for each byte here
    assert ("summary" in named) == (len(turns) > 1)


def test_results_of_tools_are_counted_apart() -> None:
    with talking([calling("now")], ["Noon."], now=lambda: "x" * 300) as (agent, _):
        agent.ask("When?")
        named = agent._event_loop.run(context_usage(agent.backend, agent.conversation, agent.schemas))  # noqa: SLF001 - as above
    assert 300 <= named["results of tools"] < 310
