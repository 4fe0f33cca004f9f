"""Anthropic's own SDK, unmodified, against a real server with the demo model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from clients_page import run_program
from conftest import HANG, eventually
from openai_rig import house
from server_rig import Process, the_server  # noqa: F401 - a fixture

from hermes_cli.errors import EngineDiedError
from hermes_cli.paths import asset
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.server.anthropic.messages import REFUSED
from hermes_cli.server.anthropic.schemas import CountRequest, MessageRequest
from hermes_cli.tools.functions import load_tools, run_tool

if TYPE_CHECKING:
    from anthropic import Anthropic
    from anthropic.types import Message

TOOLS = load_tools(asset("demo_tools.py"))
OFFERED: Any = [
    {
        "name": name,
        "description": tool.schema["function"].get("description", ""),
        "input_schema": tool.schema["function"]["parameters"],
    }
    for name, tool in TOOLS.items()
]
THINK: Any = {"type": "enabled", "budget_tokens": 1024}


def sdk() -> Any:  # noqa: ANN401 - a module
    """Return the SDK, whose import takes more than a second: not of each process that collects tests."""
    import anthropic  # noqa: PLC0415

    return anthropic


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[Anthropic]:
    with sdk().Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="x", max_retries=0, timeout=HANG) as one:
        yield one


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def said(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def thought(message: Message) -> str:
    return "".join(block.thinking for block in message.content if block.type == "thinking")


def read(message: Message) -> int:
    """Tokens of the prompt."""
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


# What changes nothing in the answer: names for the bill, hints for caches, and where and how fast Anthropic works.
IGNORED = {
    "cache_control",
    "diagnostics",
    "inference_geo",
    "metadata",
    "service_tier",
    "speed",
    "user_profile_id",
    "workspace_id",
}


def test_every_documented_field_is_known() -> None:
    message = get_type_hints(sdk().types.message_create_params.MessageCreateParamsStreaming)
    count = get_type_hints(sdk().types.message_count_tokens_params.MessageCountTokensParams)
    assert set(message) - IGNORED - REFUSED.keys() <= MessageRequest.model_fields.keys()
    assert set(count) - IGNORED - REFUSED.keys() <= CountRequest.model_fields.keys()


def test_the_program_of_the_guide(
    server: Process, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program("Anthropic's SDKs, Claude Code", server, monkeypatch)
    assert capsys.readouterr().out.strip()


def test_text(client: Anthropic) -> None:
    message = client.messages.create(
        model="demo", max_tokens=500, messages=asked("Who are you?"), extra_body={"temperature": 0}
    )
    assert said(message).startswith("I am the Hermes demo")
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 5


@pytest.mark.parametrize("streamed", [False, True])
def test_the_tool_runner_sends_everything_where_there_are_no_threads(client: Anthropic, *, streamed: bool) -> None:
    @sdk().beta_tool  # type: ignore[untyped-decorator]
    def get_weather(city: str) -> str:
        """Tell the weather in a city."""
        return run_tool(TOOLS, ToolCall("get_weather", {"city": city}))

    how: Any = {
        "model": "demo",
        "max_tokens": 200,
        "tools": [get_weather],
        "messages": asked("What's the weather in Tokyo?"),
    }
    turns: list[Any] = list(client.beta.messages.tool_runner(**how, stream=streamed))
    last = turns[-1].get_final_message() if streamed else turns[-1]
    assert (len(turns), last.stop_reason) == (2, "end_turn")
    assert "Tokyo" in last.content[0].text


def test_a_stream_says_the_same(client: Anthropic) -> None:
    how: Any = {
        "model": "demo",
        "max_tokens": 1000,
        "messages": asked("What is GGUF?"),
        "thinking": THINK,
        "extra_body": {"temperature": 0},  # which this SDK knows no more
    }
    whole = client.messages.create(**how)
    with client.messages.stream(**how) as stream:
        events = list(stream)
        streamed = stream.get_final_message()
    assert [block.model_dump() for block in streamed.content] == [block.model_dump() for block in whole.content]
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert "".join(event.thinking for event in events if event.type == "thinking") == thought(whole)
    assert "".join(event.text for event in events if event.type == "text") == said(whole)
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert read(streamed) == read(whole)
    assert streamed.usage.cache_read_input_tokens
    details = whole.usage.output_tokens_details
    assert details
    assert details == streamed.usage.output_tokens_details
    assert 0 < details.thinking_tokens < whole.usage.output_tokens


def test_tools_to_the_end(client: Anthropic) -> None:
    messages = asked("What's the weather in Tokyo and in Oslo?")
    how: Any = {"model": "demo", "max_tokens": 1000, "tools": OFFERED, "extra_body": {"temperature": 0}}
    with client.messages.stream(messages=messages, **how) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    uses = [block for block in first.content if block.type == "tool_use"]
    assert [block.input for block in uses] == [{"city": "Tokyo"}, {"city": "Oslo"}]
    results = [
        {
            "type": "tool_result",
            "tool_use_id": use.id,
            "content": run_tool(TOOLS, ToolCall(use.name, dict(use.input))),
        }
        for use in uses
    ]
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    last = client.messages.create(messages=messages, **how)
    assert "Tokyo" in said(last)
    assert last.stop_reason == "end_turn"
    # What the model wrote itself is read from the cache, though the SDK writes it anew.
    assert (last.usage.cache_read_input_tokens or 0) >= read(first) + first.usage.output_tokens - 1


def test_a_call_can_be_made_to_happen(client: Anthropic) -> None:
    how: Any = {"model": "demo", "max_tokens": 200, "tools": OFFERED, "extra_body": {"temperature": 0}}
    forced = client.messages.create(
        messages=asked("Who are you?"), tool_choice={"type": "tool", "name": "get_time"}, **how
    )
    assert {block.name for block in forced.content if block.type == "tool_use"} == {"get_time"}
    none = client.messages.create(messages=asked("What's the weather in Oslo?"), tool_choice={"type": "none"}, **how)
    assert none.stop_reason == "end_turn"


def test_counted_tokens_are_those_that_are_read(client: Anthropic) -> None:
    how: Any = {
        "model": "demo",
        "system": "You are short.",
        "messages": [*asked("Who are you?"), {"role": "assistant", "content": "Me."}, *asked("What is GGUF?")],
        "tools": OFFERED,
        "thinking": THINK,
    }
    counted = client.messages.count_tokens(**how)
    assert counted.input_tokens == read(client.messages.create(max_tokens=1, **how))
    with client.messages.stream(max_tokens=1, **how) as stream:
        start = next(iter(stream))
    assert start.type == "message_start"
    assert start.message.usage.input_tokens == counted.input_tokens


def test_stop_sequences(client: Anthropic) -> None:
    message = client.messages.create(
        model="demo",
        max_tokens=100,
        messages=asked("Who are you?"),
        stop_sequences=["Hermes"],
        extra_body={"temperature": 0},
    )
    assert (said(message).strip(), message.stop_reason, message.stop_sequence) == (
        "I am the",
        "stop_sequence",
        "Hermes",
    )


def test_errors_have_their_classes(client: Anthropic) -> None:
    with pytest.raises(sdk().NotFoundError) as missing:
        client.messages.create(model="claude-17", max_tokens=5, messages=asked("Hi"))
    assert missing.value.type == "not_found_error"
    image: Any = [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]
    with pytest.raises(sdk().BadRequestError, match="does not support images"):
        client.messages.create(model="demo", max_tokens=5, messages=[{"role": "user", "content": image}])
    with pytest.raises(sdk().BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        client.messages.create(model="demo", max_tokens=5, messages=asked("word " * 30_000), stream=True)


def test_an_error_in_a_stream_is_raised_by_the_sdk() -> None:
    with house() as rig, sdk().Anthropic(base_url=f"http://127.0.0.1:{rig.running.port}", api_key="x") as client:
        rig.says(["One", EngineDiedError("the engine was ended (Killed).", hint="ask again.")])
        stream = client.messages.create(model="hermes", max_tokens=9, messages=asked("Hi"), stream=True)
        with pytest.raises(sdk().APIStatusError, match=r"the engine was ended \(Killed\)"):
            list(stream)


def test_whoever_leaves_is_not_worked_for(client: Anthropic, server: Process) -> None:
    stream = client.messages.create(model="demo", max_tokens=5000, messages=asked("Tell me a story."), stream=True)
    next(iter(stream))
    stream.close()
    eventually(lambda: b'hermes_requests_running{model="demo"} 0.0' in server.get("/metrics").body)
