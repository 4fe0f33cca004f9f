"""OpenAI's own SDK speaks the Responses API to a real server with the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import HANG, eventually
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel
from server_rig import Process, the_server  # noqa: F401 - a fixture

from hermes_cli.paths import asset
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.functions import load_tools, run_tool

TOOLS = load_tools(asset("demo_tools.py"))
OFFERED: Any = [{"type": "function", "strict": False, **tool.schema["function"]} for tool in TOOLS.values()]
WEATHER = "What's the weather in Tokyo and in Oslo?"


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x", max_retries=0, timeout=HANG) as one:
        yield one


def reasoning(response: Response) -> str:
    return "".join(
        part.text for item in response.output if item.type == "reasoning" for part in item.content or item.summary
    )


def calls(response: Response) -> list[ResponseFunctionToolCall]:
    return [item for item in response.output if item.type == "function_call"]


def outputs(response: Response) -> list[Any]:
    """What the tools say to the calls of a response."""
    return [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": run_tool(TOOLS, ToolCall(call.name, json.loads(call.arguments))),
        }
        for call in calls(response)
    ]


def test_text(client: OpenAI) -> None:
    response = client.responses.create(model="demo", input="Who are you?", temperature=0)
    assert response.output_text.startswith("I am the Hermes demo")
    assert response.status == "completed"
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("summary", [None, "auto"])
def test_a_stream_says_the_same(client: OpenAI, summary: Any) -> None:  # noqa: ANN401 - of the SDK
    how: Any = {
        "model": "demo",
        "input": "What is GGUF?",
        "temperature": 0,
        "reasoning": {"effort": "high", "summary": summary},
    }
    whole = client.responses.create(**how)
    with client.responses.stream(**how) as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    assert streamed.output_text == whole.output_text
    assert reasoning(streamed) == reasoning(whole) != ""
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    thought = "response.reasoning_summary_text.delta" if summary else "response.reasoning_text.delta"
    assert "".join(getattr(event, "delta", "") for event in events if event.type == thought) == reasoning(whole)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert streamed.usage
    assert whole.usage
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    details = streamed.usage.output_tokens_details
    assert details.reasoning_tokens == whole.usage.output_tokens_details.reasoning_tokens > 0
    assert streamed.usage.input_tokens_details.cached_tokens > 0


def test_tools_without_anything_kept(client: OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": WEATHER}]
    first = client.responses.create(model="demo", input=items, tools=OFFERED, temperature=0, store=False)
    assert len(calls(first)) == 2
    items += [item.model_dump() for item in first.output] + outputs(first)
    last = client.responses.create(model="demo", input=items, tools=OFFERED, temperature=0, store=False)
    assert "Tokyo" in last.output_text
    assert first.usage
    assert last.usage
    # What the model wrote itself is read from the cache, though it came in several items.
    assert last.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 1


def test_tools_with_what_is_kept(client: OpenAI) -> None:
    how: Any = {"model": "demo", "tools": OFFERED, "temperature": 0}
    with client.responses.stream(input=WEATHER, **how) as stream:
        kinds = {event.type for event in stream}
        first = stream.get_final_response()
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
    last = client.responses.create(input=outputs(first), previous_response_id=first.id, **how)
    assert "Tokyo" in last.output_text
    assert last.previous_response_id == first.id
    assert last.usage
    assert first.usage
    assert last.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 1


def test_kept_responses_come_and_go(client: OpenAI) -> None:
    response = client.responses.create(model="demo", input="Who are you?", temperature=0, metadata={"a": "b"})
    again = client.responses.retrieve(response.id)
    assert again.output_text == response.output_text
    assert again.metadata == {"a": "b"}
    client.responses.delete(response.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(BadRequestError) as missing:
        client.responses.create(model="demo", input="And?", previous_response_id=response.id)
    assert (missing.value.code, missing.value.param) == ("previous_response_not_found", "previous_response_id")


class Person(BaseModel):
    name: str
    age: int


def test_an_answer_as_a_pydantic_model(client: OpenAI) -> None:
    response = client.responses.parse(
        model="demo", input="Anna is 34 years old.", text_format=Person, temperature=0, max_output_tokens=100
    )
    assert response.output_parsed == Person(name="Anna", age=34)


def test_log_probabilities_are_those_of_the_text(client: OpenAI) -> None:
    response = client.responses.create(
        model="demo",
        input="Who are you?",
        temperature=0,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    assert b"".join(bytes(token.bytes) for token in part.logprobs or []).decode() == part.text
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs or [])


def test_errors_have_their_classes(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.responses.create(model="gpt-17", input="Hi")
    assert missing.value.code == "model_not_found"
    choice: Any = {"type": "web_search_preview"}
    with pytest.raises(BadRequestError) as tool:
        client.responses.create(model="demo", input="Hi", tools=[choice], tool_choice=choice)
    assert tool.value.param == "tool_choice.type"
    with pytest.raises(BadRequestError) as long:
        client.responses.create(model="demo", input="word " * 30_000, stream=True)
    assert long.value.code == "context_length_exceeded"


def test_whoever_leaves_is_not_worked_for(client: OpenAI, server: Process) -> None:
    stream = client.responses.create(
        model="demo", input="Tell me a story.", stream=True, extra_body={"chat_template_kwargs": None, "min_p": 0.1}
    )
    next(iter(stream))
    stream.close()
    eventually(lambda: b'hermes_requests_running{model="demo"} 0.0' in server.get("/metrics").body)
