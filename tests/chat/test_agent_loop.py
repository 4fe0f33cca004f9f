"""One question to its end: turns, calls, and whatever breaks in."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Iterator

import pytest
from chat_rig import Interrupted, calling, sigint_raises, talking
from fake_engine import FakeEngine, Step

from hermes_cli.chat.agent_loop import STOPPED
from hermes_cli.chat.conversation import Conversation
from hermes_cli.engine.protocol import Done
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import ContextFullError, EngineDiedError, HermesError
from hermes_cli.generation import MAX_ROUNDS
from hermes_cli.prompting.families import HERMES_4

DIED = EngineDiedError("the engine was ended (Killed).", hint="ask again.")


@pytest.fixture(autouse=True)
def raising() -> Iterator[None]:
    with sigint_raises():
        yield


def contents(conversation: Conversation) -> list[tuple[str, str | None]]:
    return [(one.message.role, one.message.content) for one in conversation.entries]


def test_an_answer_is_shown_and_kept_with_what_it_took() -> None:
    with talking(["Hel", "lo"]) as (agent, seen):
        agent.ask("Hi")
    assert seen.text == "Hello"
    assert contents(agent.conversation) == [("user", "Hi"), ("assistant", "Hello")]
    answer = agent.conversation.entries[1]
    assert answer.model == "fake"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert not answer.unfinished


def test_the_next_question_reads_what_was_said() -> None:
    engine = FakeEngine([["One"], ["Two"]])
    with talking(engine=engine) as (agent, _):
        agent.ask("first")
        agent.ask("second")
    prompt = "".join(map(str, engine.requests[1].prompt))
    assert prompt.index("first") < prompt.index("One") < prompt.index("second")


def test_calls_run_in_their_order_and_results_follow_them() -> None:
    ran: list[str] = []
    engine = FakeEngine([["Let me see.", calling("b"), "\n" + calling("a")], ["Done."]])

    def running(name: str, result: str) -> str:
        ran.append(name)
        return result

    with talking(engine=engine, a=lambda: running("a", "1"), b=lambda: running("b", "2")) as (agent, seen):
        result = agent.ask("Hi")
    assert ran == ["b", "a"]
    assert [name for name, _ in seen.results] == ["b", "a"]
    assert [output.text for _, output in result.tool_runs] == ["2", "1"]
    roles = [role for role, _ in contents(agent.conversation)]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]
    prompt = "".join(map(str, engine.requests[1].prompt))
    assert prompt.index(calling("b")) < prompt.index("<tool_response>\n2\n</tool_response>")


def test_calls_that_never_end_are_an_error_and_every_call_has_its_result() -> None:
    engine = FakeEngine([[calling()]])
    with talking(engine=engine, now=lambda: "") as (agent, _):
        with pytest.raises(HermesError, match=f"called tools {MAX_ROUNDS} times"):
            agent.ask("Hi")
        assert [role for role, _ in contents(agent.conversation)] == ["user", *["assistant", "tool"] * MAX_ROUNDS]
    assert len(engine.requests) == MAX_ROUNDS


def test_without_tools_a_call_ends_the_turn() -> None:
    with talking([calling()], now=lambda: "noon") as (agent, seen):
        agent.offers_tools = False
        agent.ask("Hi")
    assert not seen.results


def test_ctrl_c_cancels_and_keeps_what_came() -> None:
    def script(_: GenerationRequest) -> Iterable[Step]:
        yield "Hello"
        signal.raise_signal(signal.SIGINT)
        yield asyncio.Event()

    engine = FakeEngine([script])
    with talking(engine=engine) as (agent, seen):
        with pytest.raises(Interrupted):
            agent.ask("Hi")
        assert contents(agent.conversation) == [("user", "Hi"), ("assistant", "Hello")]
        assert agent.conversation.entries[1].unfinished
    assert engine.cancelled == [0]
    assert seen.turns[0][1]


def test_ctrl_c_before_the_first_word_keeps_the_question() -> None:
    def script(_: GenerationRequest) -> Iterable[Step]:
        signal.raise_signal(signal.SIGINT)
        yield asyncio.Event()

    with talking(script) as (agent, _), pytest.raises(Interrupted):
        agent.ask("Hi")
    assert contents(agent.conversation) == [("user", "Hi")]


def test_ctrl_c_in_a_call_leaves_none_without_a_result() -> None:
    cleaned = []

    def now() -> str:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            cleaned.append(True)
        return "never"

    with talking([calling(), "\n" + calling("later")], now=now, later=lambda: "never") as (agent, _):
        with pytest.raises(Interrupted):
            agent.ask("Hi")
        roles = contents(agent.conversation)
    assert cleaned
    assert [role for role, _ in roles] == ["user", "assistant", "tool", "tool"]
    assert all(STOPPED in str(content) for _, content in roles[2:])


def test_calls_of_a_turn_that_was_stopped_are_not_kept() -> None:
    def script(_: GenerationRequest) -> Iterable[Step]:
        yield calling() + "\n"
        yield "and"
        signal.raise_signal(signal.SIGINT)
        yield asyncio.Event()

    with talking(script, now=lambda: "noon") as (agent, _):
        with pytest.raises(Interrupted):
            agent.ask("Hi")
        assert not any(one.message.tool_calls for one in agent.conversation.entries)


def test_an_engine_that_dies_leaves_the_question_and_what_it_said() -> None:
    with talking(["Hello", DIED], ["again"]) as (agent, _):
        with pytest.raises(EngineDiedError):
            agent.ask("Hi")
        assert contents(agent.conversation) == [("user", "Hi"), ("assistant", "Hello")]
        agent.retry()
        assert contents(agent.conversation) == [("user", "Hi"), ("assistant", "again")]


def test_an_engine_that_dies_at_once_can_be_asked_again() -> None:
    with talking([DIED], ["again"]) as (agent, _):
        with pytest.raises(EngineDiedError):
            agent.ask("Hi")
        agent.retry()
        assert contents(agent.conversation) == [("user", "Hi"), ("assistant", "again")]


def test_what_is_too_long_was_not_said() -> None:
    with talking(["no"], ["Hello"]) as (agent, _):
        with pytest.raises(ContextFullError):
            agent.ask("word " * 5000)
        assert not agent.conversation.entries
        agent.ask("Hi")
        assert len(agent.conversation.entries) == 2


def test_nothing_can_be_asked_again_before_anything_was_asked() -> None:
    with talking() as (agent, _), pytest.raises(HermesError, match="nothing was asked yet"):
        agent.retry()


def test_reasoning_is_kept_apart_and_timed() -> None:
    with talking(["<think>", "Hm", "m.", "</think>", "Yes."], family=HERMES_4) as (agent, seen):
        agent.ask("Hi")
    message = agent.conversation.entries[1].message
    assert (message.content, message.reasoning) == ("Yes.", "Hmm.")
    assert seen.reasoned == "Hmm."
    answer = seen.turns[0][0]
    assert answer.reasoning_seconds >= 0


def test_a_cut_answer_says_why() -> None:
    with talking(["Hello", Done("length", 5, 0, 9, 0.1, 0.1, context_full=True)]) as (agent, seen):
        agent.ask("Hi")
    done = seen.turns[0][0].done
    assert done is not None
    assert done.context_full
