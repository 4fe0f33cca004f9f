"""`hermes mcp` as an agent meets it: a process that speaks MCP, here with `hermes chat`'s own client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from hermes_cli.prompting.messages import ToolCall, ToolResult
from hermes_cli.tools.config import McpCommand
from hermes_cli.tools.toolbox import Consent, Toolbox

pytestmark = pytest.mark.slow  # it starts a process


@pytest.fixture(scope="module")
def agent() -> Iterator[Toolbox]:
    toolbox = Toolbox(Consent(None, everything=True), pytest.fail)
    try:
        toolbox.begin([McpCommand("hermes", (sys.executable, "-m", "hermes_cli", "mcp", "demo"))])
        toolbox.ready()
        yield toolbox
    finally:
        toolbox.close()


def call(agent: Toolbox, name: str, **arguments: object) -> ToolResult:
    return agent.run(ToolCall(name, arguments))


def test_it_offers_three_tools(agent: Toolbox) -> None:
    assert [name for name, *_ in agent.listing()] == ["chat", "recommend", "plan"]
    recommend = agent.schemas[1]["function"]["parameters"]
    assert "long-context" in recommend["properties"]["purpose"]["enum"]


def test_chat_answers_each_prompt_on_its_own(agent: Toolbox) -> None:
    first = call(agent, "chat", prompt="What can you do?")
    assert not first.failed
    assert "call tools" in first.text
    assert call(agent, "chat", prompt="What can you do?").text == first.text
    assert len(call(agent, "chat", prompt="What can you do?", max_tokens=3).text) < len(first.text)


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(agent: Toolbox) -> None:
    failed = call(agent, "chat", prompt="word " * 5_000)
    assert failed.failed
    assert "the context length is 1,024 tokens" in failed.text


def test_recommend_and_plan_are_the_commands(agent: Toolbox) -> None:
    assert json.loads(call(agent, "recommend", purpose="agent").text)["purpose"] == "agent"
    assert json.loads(call(agent, "plan", model="hermes-3:8b", context=4096).text)["settings"]["context"] == 4096
    unknown = call(agent, "plan", model="hermes-3:9b")
    assert unknown.failed
    assert "did you mean hermes-3:8b" in unknown.text
