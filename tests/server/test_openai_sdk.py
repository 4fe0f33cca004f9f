"""OpenAI's own SDK, unmodified, against a real server with the demo model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from clients_page import run_program
from conftest import HANG, eventually
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types import completion_create_params as completion_params
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat import completion_create_params as chat_params
from openai_rig import house
from pydantic import BaseModel
from server_rig import Process, the_server  # noqa: F401 - a fixture

from hermes_cli.errors import EngineDiedError
from hermes_cli.paths import asset
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.server.openai.requests import REFUSED, ChatRequest, CompletionRequest
from hermes_cli.tools.functions import load_tools, run_tool

TOOLS = load_tools(asset("demo_tools.py"))
OFFERED: Any = [tool.schema for tool in TOOLS.values()]
ANNA = "Anna is 34 years old."


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x", max_retries=0, timeout=HANG) as one:
        yield one


def asked(text: str, *before: ChatCompletionMessageParam) -> list[ChatCompletionMessageParam]:
    return [*before, {"role": "user", "content": text}]


def said(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


def reasoning(message: BaseModel) -> str:
    """What the SDK has no field for."""
    extra = message.model_extra or {}
    assert extra.get("reasoning_content") == extra.get("reasoning")
    return str(extra.get("reasoning_content", ""))


# What changes nothing in the answer: names for the bill, hints for caches, and what OpenAI keeps.
IGNORED = {
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
}


@pytest.mark.parametrize(
    ("documented", "request_model"),
    [
        (chat_params.CompletionCreateParamsStreaming, ChatRequest),
        (completion_params.CompletionCreateParamsStreaming, CompletionRequest),
    ],
)
def test_every_documented_field_is_known(documented: type, request_model: type[BaseModel]) -> None:
    fields = set(get_type_hints(documented))
    assert len(fields) > 15
    assert fields - IGNORED - REFUSED.keys() <= request_model.model_fields.keys()


def test_the_program_of_the_guide(
    server: Process, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program("OpenAI's SDKs", server, monkeypatch)
    assert capsys.readouterr().out.strip()


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "demo"
    assert client.models.retrieve("demo") == model
    assert (model.model_extra or {})["max_model_len"] >= 1024


def test_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=asked("Who are you?"), temperature=0)
    assert said(answer).startswith("I am the Hermes demo")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    timings = (answer.model_extra or {})["timings"]
    assert timings["predicted_n"] == answer.usage.completion_tokens
    assert timings["predicted_per_second"] > 0


def test_a_stream_says_the_same(client: OpenAI) -> None:
    how: Any = {"model": "demo", "messages": asked("What is GGUF?"), "temperature": 0, "extra_body": {"think": True}}
    whole = client.chat.completions.create(**how)
    chunks: list[ChatCompletionChunk] = list(
        client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True})
    )
    *pieces, last = chunks
    deltas = [piece.choices[0].delta for piece in pieces]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == said(whole)
    assert "".join(map(reasoning, deltas)) == reasoning(whole.choices[0].message)
    assert reasoning(whole.choices[0].message)
    assert len(pieces) > 10
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert last.usage
    assert whole.usage
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.completion_tokens_details
    assert whole.usage.completion_tokens_details
    thought = last.usage.completion_tokens_details.reasoning_tokens
    assert thought == whole.usage.completion_tokens_details.reasoning_tokens
    assert last.usage.prompt_tokens_details
    assert (last.usage.prompt_tokens_details.cached_tokens or 0) > 0


def test_the_helper_for_streams(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="demo", messages=asked("What's the weather in Tokyo?"), tools=OFFERED, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Tokyo"}
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds


def test_tools_to_the_end(client: OpenAI) -> None:
    messages: list[Any] = list(asked("What's the weather in Tokyo and in Oslo?"))
    rounds: list[ChatCompletion] = []
    while True:
        answer = client.chat.completions.create(model="demo", messages=messages, tools=OFFERED, temperature=0)
        rounds.append(answer)
        message = answer.choices[0].message
        messages.append(message)
        if not message.tool_calls:
            break
        assert answer.choices[0].finish_reason == "tool_calls"
        for call in message.tool_calls:
            assert call.type == "function"
            wanted = ToolCall(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": run_tool(TOOLS, wanted)})
    first, last = rounds
    assert [message["role"] for message in messages if isinstance(message, dict)] == ["user", "tool", "tool"]
    assert "Tokyo" in said(last)
    assert last.usage
    assert last.usage.prompt_tokens_details
    assert first.usage
    # What the model wrote itself is read from the cache, though the SDK writes it anew.
    assert (last.usage.prompt_tokens_details.cached_tokens or 0) >= first.usage.total_tokens - 1


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_a_call_can_be_made_to_happen(client: OpenAI, choice: Any) -> None:  # noqa: ANN401 - of the SDK
    answer = client.chat.completions.create(
        model="demo", messages=asked("Who are you?"), tools=OFFERED, tool_choice=choice, max_tokens=200, temperature=0
    )
    calls = answer.choices[0].message.tool_calls or []
    assert calls
    assert choice == "required" or {call.function.name for call in calls if call.type == "function"} == {"get_time"}
    none = client.chat.completions.create(
        model="demo", messages=asked("What's the weather in Oslo?"), tools=OFFERED, tool_choice="none", temperature=0
    )
    assert none.choices[0].message.tool_calls is None


class Person(BaseModel):
    name: str
    age: int


def test_an_answer_as_a_pydantic_model(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo", messages=asked(ANNA), response_format=Person, temperature=0, max_tokens=100
    )
    assert answer.choices[0].message.parsed == Person(name="Anna", age=34)


def test_any_json(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=asked(ANNA), response_format={"type": "json_object"}, temperature=0, max_tokens=100
    )
    assert isinstance(json.loads(said(answer)), dict)


def test_several_choices_draw_with_seeds_of_their_own(client: OpenAI) -> None:
    several = client.chat.completions.create(
        model="demo",
        messages=asked("pling plong"),
        n=3,
        seed=11,
        temperature=5,
        top_p=1,
        max_tokens=8,
        extra_body={"top_k": 0, "min_p": 0},
    )
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in several.choices}) == 3
    assert several.usage
    assert several.usage.completion_tokens == 24


def test_log_probabilities_are_those_of_the_text(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=asked("Who are you?"), temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    tokens = logprobs.content or []
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == said(answer)
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # the likeliest was taken
        assert token.logprob <= 0


def test_stops_and_biases(client: OpenAI) -> None:
    stopped = client.chat.completions.create(model="demo", messages=asked("Who are you?"), stop="Hermes", temperature=0)
    assert said(stopped) == "I am the"
    first = client.completions.create(model="demo", prompt="I am the", temperature=0, max_tokens=1, logprobs=1)
    assert first.choices[0].logprobs
    (token,) = first.choices[0].logprobs.tokens or []
    with_id = client.post("/../tokenize", body={"content": token}, cast_to=object)
    (number,) = with_id["tokens"]  # type: ignore[index]
    other = client.completions.create(
        model="demo", prompt="I am the", temperature=0, max_tokens=1, logit_bias={str(number): -100}
    )
    assert other.choices[0].text != first.choices[0].text


def test_completions(client: OpenAI) -> None:
    how: Any = {"model": "demo", "prompt": ["Once upon", "There was"], "temperature": 0, "max_tokens": 12, "echo": True}
    whole = client.completions.create(**how)
    streamed = {0: "", 1: ""}
    for chunk in client.completions.create(**how, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == {choice.index: choice.text for choice in whole.choices}
    assert whole.choices[1].text.startswith("There was")


def test_nothing_generated_is_an_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=asked("Hi"), max_tokens=0)
    assert (said(answer), answer.choices[0].finish_reason) == ("", "length")


def test_errors_have_their_classes(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.chat.completions.create(model="gpt-17", messages=asked("Hi"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as odd:
        client.chat.completions.create(model="demo", messages=asked("Hi"), temperature=-1)
    assert odd.value.param == "temperature"
    with pytest.raises(BadRequestError) as long:
        client.chat.completions.create(model="demo", messages=asked("word " * 30_000), stream=True)
    assert long.value.code == "context_length_exceeded"
    assert "maximum context length is" in long.value.message


def test_an_error_in_a_stream_is_raised_by_the_sdk() -> None:
    with house() as rig, OpenAI(base_url=f"http://127.0.0.1:{rig.running.port}/v1", api_key="x") as client:
        rig.says(["One", EngineDiedError("the engine was ended (Killed).", hint="ask again.")])
        stream = client.chat.completions.create(model="hermes", messages=asked("Hi"), stream=True)
        first = [next(stream).choices[0].delta.content for _ in range(2)]
        with pytest.raises(APIError, match=r"the engine was ended \(Killed\)") as raised:
            next(stream)
        assert first == ["", "One"]
        assert raised.value.code == "engine_died"


def test_whoever_leaves_is_not_worked_for(server: Process) -> None:
    """Eight streams that would never end, left after their first words."""

    async def leave() -> None:
        async with AsyncOpenAI(
            base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x", max_retries=0, timeout=HANG
        ) as client:

            async def one() -> None:
                stream = await client.chat.completions.create(
                    model="demo", messages=asked("Tell me a story."), stream=True, extra_body={"ignore_eos": True}
                )
                async for _ in stream:
                    await stream.close()
                    break

            await asyncio.gather(*(one() for _ in range(8)))

    asyncio.run(leave())
    eventually(lambda: b'hermes_requests_running{model="demo"} 0.0' in server.get("/metrics").body)
