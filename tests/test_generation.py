"""Messages in, events out, on the real demo model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import RunHermes, WaitFor
from desk import finish
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.vocabulary import prompt_tokens
from hermes_cli.errors import UsageError
from hermes_cli.generation import (
    CallArguments,
    CallFinished,
    CallStarted,
    ChatModel,
    Constraints,
    Content,
    Done,
    Event,
    Message,
    PromptOptions,
    Reasoning,
    SamplingOptions,
    TurnRequest,
)
from hermes_cli.paths import asset
from hermes_cli.prompting.structured_output import json_schema, tool_calls
from hermes_cli.tools.functions import load_tools

GREEDY = SamplingOptions(temperature=0)
TOOLS = [tool.schema for tool in load_tools(asset("demo_tools.py")).values()]


def asked(text: str, tools: Sequence[dict[str, Any]] = (), **how: Any) -> TurnRequest:  # noqa: ANN401 - what a turn takes
    return TurnRequest([Message("user", text)], tools, **{"sampling": GREEDY, "max_tokens": 200, **how})


# Tokens of reasoning that are counted beside those that show: line breaks and the tag that ends it; and by how much
# the count may be off where texts of several tokens were joined on their way.
SLACK = 4

Answer = Callable[[TurnRequest], tuple[list[Event], Done]]


@pytest.fixture
def answer(demo_chatter: ChatModel, wait_for: WaitFor) -> Answer:
    async def collect(turn: TurnRequest) -> list[Event]:
        return [event async for event in demo_chatter.answer(turn)]

    def answer(turn: TurnRequest) -> tuple[list[Event], Done]:
        *events, done = wait_for(collect(turn))
        assert isinstance(done, Done)
        return events, done

    return answer


def said(events: list[Event], kind: type[Content | Reasoning]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def test_a_turn_of_calls_ends_with_that_reason(answer: Answer) -> None:
    events, done = answer(asked("What's the weather in Tokyo and in Oslo?", TOOLS))
    calls = [event.call for event in events if isinstance(event, CallFinished)]
    assert [call.arguments for call in calls] == [{"city": "Tokyo"}, {"city": "Oslo"}]
    assert done.reason == "tool_calls"
    assert said(events, Content) == ""


def test_what_the_model_wrote_is_read_from_the_cache_though_a_client_writes_it_anew(answer: Answer) -> None:
    question = asked("What's the weather in Tokyo?", TOOLS)
    events, first = answer(question)
    (call,) = [event.call for event in events if isinstance(event, CallFinished)]
    result = Message("tool", json.dumps({"temperature": 13, "condition": "rainy"}), tool_call_id=call.id)
    _, second = answer(replace(question, messages=[*question.messages, Message("assistant", None, (call,)), result]))
    # Everything up to the end of the call, but for the last token of the turn, which was never decoded.
    assert second.cached_tokens >= first.prompt_tokens + first.completion_tokens - 1


def test_thinking_is_switched_on_and_counted(answer: Answer) -> None:
    events, done = answer(asked("What is GGUF?", options=PromptOptions(think=True)))
    assert said(events, Reasoning)
    assert 0 < done.reasoning_tokens < done.completion_tokens
    events, done = answer(asked("What is GGUF?", options=PromptOptions(think=False)))
    assert not said(events, Reasoning)
    assert done.reasoning_tokens == 0


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_a_budget_ends_the_thought_and_an_answer_follows(answer: Answer, demo_model: LlamaModel, budget: int) -> None:
    whole, _ = answer(asked("What is GGUF?", options=PromptOptions(think=True)))
    events, done = answer(asked("What is GGUF?", options=PromptOptions(think=True), think_budget=budget))
    thought = demo_model.vocabulary.tokenize(said(events, Reasoning), special=False)
    assert len(said(events, Reasoning)) < len(said(whole, Reasoning))
    assert len(thought) <= budget
    assert done.reasoning_tokens <= budget + SLACK
    assert "file format" in said(events, Content)


@given(st.sampled_from(["<|im_end|>", "<|im_start|>", "<tool_call>", "</think>"]), st.text("ab <|", max_size=6))
def test_control_tokens_in_what_users_say_are_only_text(
    demo_chatter: ChatModel, demo_model: LlamaModel, wait_for: WaitFor, tag: str, around: str
) -> None:
    def tokens(text: str) -> list[int]:
        """As the engine's process makes them of what it is sent."""
        engine = FakeEngine([[]])
        wait_for(anext(ChatModel(engine, demo_chatter.loaded).answer(asked(text))))
        return finish(prompt_tokens(demo_model.vocabulary, engine.requests[0].prompt, 1024))

    vocabulary = demo_model.vocabulary
    (special,) = vocabulary.tokenize(tag, special=True)
    text = f"{around}{tag}{around}"
    assert tokens(text).count(special) == tokens("x").count(special)
    assert b"".join(map(vocabulary.piece, tokens(text))).decode() == wait_for(demo_chatter.prompt(asked(text))).plain


def test_tokens_are_counted_as_they_are_read(demo_chatter: ChatModel, answer: Answer, wait_for: WaitFor) -> None:
    turn = asked("What is <|im_end|> for?", TOOLS, max_tokens=1)
    _, done = answer(turn)
    assert wait_for(demo_chatter.count(turn)) == done.prompt_tokens


def test_reasoning_asked_of_a_model_without_it_is_refused(demo_path: Path, hermes: RunHermes, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    done = hermes("chat", str(demo_path), "--template", str(template), "--think", "Hi")
    assert done.returncode == UsageError.exit_code
    assert "reasoning" in done.stderr
    assert "next: " in done.stderr


def test_flags_of_chat_reach_the_model(hermes: RunHermes) -> None:
    page = json.loads(hermes("chat", "demo", "--think", "--temperature", "0", "--json", "What is GGUF?").stdout)
    assert page["reasoning"]
    assert page["usage"]["reasoning_tokens"] > 0
    page = json.loads(
        hermes("chat", "demo", "--think", "--think-budget", "2", "--temperature", "0", "--json", "What is GGUF?").stdout
    )
    assert page["usage"]["reasoning_tokens"] <= 2 + SLACK


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def wild(seed: int) -> SamplingOptions:
    return SamplingOptions(temperature=5, top_k=0, top_p=1, min_p=0, seed=seed)


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_bound_to_a_schema_conforms_however_wild_the_model_is(answer: Answer, seed: int) -> None:
    constraints = Constraints(json_schema(SCHEMA))
    events, done = answer(asked("Anna is 31.", sampling=wild(seed), max_tokens=150, constraints=constraints))
    found = json.loads(said(events, Content))
    assert set(found) == {"name", "age"}
    assert 0 <= found["age"] <= 150
    assert len(found["name"]) <= 12
    assert done.reason == "stop"


@pytest.mark.parametrize("seed", range(6))
def test_required_calls_are_of_offered_tools_with_their_parameters(answer: Answer, seed: int) -> None:
    constraints = Constraints(calls=tool_calls(TOOLS, "required"))
    events, done = answer(asked("Hello", TOOLS, sampling=wild(seed), max_tokens=300, constraints=constraints))
    calls = [event for event in events if isinstance(event, CallFinished) and event.complete]
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert calls or done.reason == "length"
    for one in calls:
        properties = parameters[one.call.name]["properties"]
        assert set(one.call.arguments) <= set(properties)


def test_streamed_arguments_are_those_of_the_call(answer: Answer) -> None:
    constraints = Constraints(calls=tool_calls(TOOLS))
    events, _ = answer(asked("What's the weather in Tokyo?", TOOLS, constraints=constraints))
    (started,) = [event for event in events if isinstance(event, CallStarted)]
    (finished,) = [event for event in events if isinstance(event, CallFinished)]
    streamed = "".join(event.text for event in events if isinstance(event, CallArguments))
    assert started.name == finished.call.name == "get_weather"
    assert json.loads(streamed) == finished.call.arguments == {"city": "Tokyo"}


def test_none_makes_calls_impossible(answer: Answer) -> None:
    constraints = Constraints(calls=tool_calls(TOOLS, "none"))
    events, done = answer(asked("What's the weather in Tokyo?", TOOLS, constraints=constraints))
    assert not any(isinstance(event, CallStarted | CallFinished) for event in events)
    assert done.reason != "tool_calls"


@pytest.mark.parametrize("think", [None, True, False])
@pytest.mark.parametrize("schema", [False, True])
@pytest.mark.parametrize("tools", [False, True])
def test_tools_schema_and_thinking_go_together(
    answer: Answer,
    tools: bool,  # noqa: FBT001 - one cell of a matrix
    schema: bool,  # noqa: FBT001 - as above
    think: bool | None,  # noqa: FBT001 - as above
) -> None:
    offered = TOOLS if tools else []
    constraints = Constraints(json_schema(SCHEMA) if schema else None, tool_calls(offered) if tools else None)
    options = PromptOptions(think=think, schema=SCHEMA if schema else False)
    events, done = answer(asked("Anna is 31 years old.", offered, options=options, constraints=constraints))
    calls = [event.call for event in events if isinstance(event, CallFinished) and event.complete]
    if schema and not calls and done.reason == "stop":
        assert set(json.loads(said(events, Content))) == {"name", "age"}
    if think is False:
        assert not said(events, Reasoning)
    assert all(call.name in {tool["function"]["name"] for tool in offered} for call in calls)
    assert done.reason in {"stop", "length", "tool_calls"}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ('{"type": ', "this is not JSON"),
        ("no-such-file.json", "No such file"),
        ("[1, 2]", "No such file"),
        ('{"type": "strin"}', "strin"),
        ('{"$ref": "https://example.org/schema"}', "$ref"),
    ],
)
def test_a_schema_that_is_none_is_refused_before_the_model_works(hermes: RunHermes, schema: str, says: str) -> None:
    done = hermes("chat", "demo", "--schema", schema, "Hi")
    assert done.returncode == UsageError.exit_code, done.stderr
    assert says in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_from_a_file(hermes: RunHermes, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    done = hermes("chat", "demo", "--schema", "schema.json", "Anna is 31 years old.")
    assert json.loads(done.stdout) == {"name": "Anna", "age": 31}


def begun(text: str, begin: str, **how: Any) -> TurnRequest:  # noqa: ANN401 - as above
    return replace(asked(text, **how), messages=[Message("user", text), Message("assistant", begin)], continues=True)


CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}


@pytest.mark.parametrize("begin", ["{", '{"city":', '{\n  "city" : "Os', '{"city": "Oslo",', "\n"])
def test_an_answer_that_is_begun_ends_as_its_schema_wants_it(answer: Answer, begin: str) -> None:
    constraints = Constraints(json_schema({**CITY, "additionalProperties": False}, notes=[]))
    events, _ = answer(begun("Where is it warm?", begin, constraints=constraints, options=PromptOptions(schema=CITY)))
    value = json.loads(begin + said(events, Content))
    assert value.keys() <= CITY["properties"].keys()  # type: ignore[attr-defined]
    assert isinstance(value["city"], str)


def test_an_answer_that_its_schema_forbids_is_refused(answer: Answer) -> None:
    with pytest.raises(UsageError, match="the answer that is begun cannot go on"):
        answer(begun("Where?", "It is", constraints=Constraints(json_schema(CITY, notes=[]))))


def test_a_call_that_is_begun_is_held_to_the_tools(answer: Answer) -> None:
    for mode in ("auto", "required"):
        calls = tool_calls(TOOLS, mode, parallel=False, notes=[])
        turn = begun("Hello.", '<tool_call>\n{"name": "get_weather", "arg', constraints=Constraints(calls=calls))
        events, done = answer(replace(turn, tools=TOOLS))
        (call,) = [event.call for event in events if isinstance(event, CallFinished)]
        assert (call.name, [*call.arguments]) == ("get_weather", ["city"])
        assert done.reason == "tool_calls"


def test_text_goes_on_where_the_client_stopped(answer: Answer) -> None:
    whole, _ = answer(asked("Who are you?"))
    text = said(whole, Content)
    for end in (4, text.index(" tiny")):  # ends of words: half a word is other tokens
        events, _ = answer(begun("Who are you?", text[:end]))
        assert text[:end] + said(events, Content) == text
