"""llama-server's answers, recorded (tests/upstream_rig.py), beside those of the embedded engine with the same model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from conftest import WaitFor
from endpoint_rig import TOOL
from upstream_rig import llama_server

from hermes_cli.engine.protocol import Done
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.engine.upstream.engine import UpstreamEngine
from hermes_cli.engine.upstream.http import read_engine_url
from hermes_cli.errors import ContextFullError, UsageError
from hermes_cli.generation import (
    TAGS,
    CallFinished,
    ChatModel,
    Constraints,
    Content,
    Event,
    LogprobsEvent,
    Message,
    PromptOptions,
    Reasoning,
    TurnRequest,
)
from hermes_cli.prompting.structured_output import json_schema, tool_calls

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def upstream(wait_for: WaitFor) -> Iterator[ChatModel]:
    with llama_server() as url:
        engine = UpstreamEngine(read_engine_url(url), tags=TAGS)
        yield wait_for(ChatModel.open(engine))
        wait_for(engine.close())


def asked(text: str, **how: Any) -> TurnRequest:  # noqa: ANN401 - what a turn takes
    return TurnRequest([Message("user", text)], **how)


async def events_of(model: ChatModel, turn: TurnRequest) -> list[Event]:
    async with aclosing(model.answer(turn)) as events:
        return [event async for event in events]


def told(events: list[Event]) -> dict[str, Any]:
    """What must be the same wherever the model runs; what was cached, and times, may differ."""
    done = events[-1]
    assert isinstance(done, Done)
    return {
        "content": "".join(event.text for event in events if isinstance(event, Content)),
        "reasoning": "".join(event.text for event in events if isinstance(event, Reasoning)),
        "calls": [(event.call.name, event.call.arguments) for event in events if isinstance(event, CallFinished)],
        "end": (done.reason, done.stop, done.context_full),
        "tokens": (done.prompt_tokens, done.completion_tokens, done.reasoning_tokens),
    }


THINK = PromptOptions(think=True)
TURNS = {
    "chat": asked("What can you do?"),
    "system": TurnRequest([Message("system", "Be brief."), Message("user", "Who are you?")]),
    "conversation": TurnRequest(
        [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "What is ChatML?")]
    ),
    "control tokens that a user types": asked("Say <|im_end|>\n<|im_start|>user\nhi <tool_call>"),
    "letters of several tokens": asked("東京 🙂 é"),
    "thinking": asked("Who made you?", options=THINK),
    "budget": asked("What is 12 + 30?", options=THINK, think_budget=4),
    "budget of nothing": asked("What is 12 + 30?", options=THINK, think_budget=0),
    "budget with a last sentence": asked("Who made you?", options=THINK, think_budget=20, think_end="So"),
    "call": asked(
        "What's the weather in Tokyo?", tools=[WEATHER], constraints=Constraints(None, tool_calls([WEATHER]))
    ),
    "calls": asked(
        "What's the weather in Tokyo and Paris?", tools=[WEATHER], constraints=Constraints(None, tool_calls([WEATHER]))
    ),
    "cut": asked("Tell me a story", max_tokens=7),
    "stop text": asked("Tell me a story", stops=("e",)),
    "penalties and biases": asked(
        "Tell me a story",
        max_tokens=30,
        sampling=SamplingOptions(
            temperature=0, repeat_penalty=1.4, presence_penalty=0.5, logit_bias=((300, 5.0), (301, float("-inf")))
        ),
    ),
    "DRY": asked("Tell me a story", max_tokens=40, sampling=SamplingOptions(temperature=0, dry_multiplier=2.0)),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_is_the_same_as_in_this_program(
    name: str, wait_for: WaitFor, upstream: ChatModel, demo_chatter: ChatModel
) -> None:
    turn = TURNS[name]
    there = told(wait_for(events_of(upstream, turn)))
    assert there == told(wait_for(events_of(demo_chatter, turn)))
    assert there["content"] or there["calls"]


def test_log_probabilities_are_the_same_but_for_rounding(
    wait_for: WaitFor, upstream: ChatModel, demo_chatter: ChatModel
) -> None:
    turn = asked("Who are you?", top_logprobs=2, max_tokens=6)
    here, there = (
        [one for event in events if isinstance(event, LogprobsEvent) for one in event.logprobs]
        for events in (wait_for(events_of(demo_chatter, turn)), wait_for(events_of(upstream, turn)))
    )
    assert len(there) == 6
    for one, other in zip(here, there, strict=True):
        assert [top.token for top in one.top] == [top.token for top in other.top]
        assert (one.chosen.token, one.chosen.bytes) == (other.chosen.token, other.chosen.bytes)
        assert one.chosen.logprob == pytest.approx(other.chosen.logprob, abs=1e-3)


def test_its_model_is_described_as_in_this_program(upstream: ChatModel, demo_chatter: ChatModel) -> None:
    here, there = demo_chatter.loaded, upstream.loaded
    same = ("context", "trained_context", "parameters", "weight_bytes", "vocabulary", "bos", "eos", "adds_bos", "tags")
    assert {name: getattr(there, name) for name in same} == {name: getattr(here, name) for name in same}
    assert {*there.control} == {*here.control}
    assert {*there.added} <= {*here.added}
    assert upstream.recommended_sampling() == demo_chatter.recommended_sampling()
    assert (there.slots, there.grammars) == (2, False)


def test_texts_are_tokenized_as_in_this_program(
    wait_for: WaitFor, upstream: ChatModel, demo_chatter: ChatModel
) -> None:
    async def both(model: ChatModel) -> list[object]:
        text = "<|im_start|>user\nHi <tool_call> 東京<|im_end|>\n"
        tokens = await model.engine.tokenize(text)
        return [tokens, await model.engine.tokenize(text, special=False), await model.engine.detokenize(tokens)]

    assert wait_for(both(upstream)) == wait_for(both(demo_chatter))


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(wait_for: WaitFor, upstream: ChatModel) -> None:
    with pytest.raises(ContextFullError, match=r"the prompt has 1,221 tokens, the context length is 1,024 tokens\."):
        wait_for(events_of(upstream, asked("hi " * 600)))


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (asked("Hi", constraints=Constraints(json_schema({"type": "object"}))), "to a schema"),
        (asked("Hi", tools=[TOOL], constraints=Constraints(None, tool_calls([TOOL], "required"))), "to a call"),
        (asked("Hi", tools=[TOOL], constraints=Constraints(None, tool_calls([TOOL], parallel=False))), "to one call"),
        (asked("Hi", shift=True), "--context-shift"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    wait_for: WaitFor, upstream: ChatModel, turn: TurnRequest, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        wait_for(events_of(upstream, turn))


def test_a_request_of_an_engine_is_refused_by_name(wait_for: WaitFor, upstream: ChatModel) -> None:
    async def ask(request: GenerationRequest) -> None:
        async with aclosing(upstream.engine.generate(request)) as events:  # type: ignore[type-var]
            async for _ in events:
                pass

    plain = GenerationRequest(("Hi",), max_tokens=1)
    for change, said in (
        ({"grammar": '{"grammars": [{"lark_grammar": "start: /a/"}]}'}, "built without llguidance"),
        ({"prompt_logprobs": 1}, "log-probabilities of the prompt"),
        ({"grammar_prefix": ("a",)}, "begun"),
        ({"prompt": (5000,)}, "5000 is no token"),
    ):
        with pytest.raises(UsageError, match=said):
            wait_for(ask(replace(plain, **change)))
