"""`hermes mcp` as an agent meets it: a process that speaks MCP, here with `hermes chat`'s own client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import HANG

from hermes_cli.commands.mcp import MAX_COMMANDS
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


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("chat", {"prompt": "Hi", "max_tokens": -5}, "greater than or equal to 1"),
        ("plan", {"model": "a\0b"}, "no null character"),
        ("plan", {"model": "x" * 200_000}, "at most 4096 characters"),
        ("recommend", {"model": "--help"}, "no model named --help"),
    ],
)
def test_arguments_that_are_attacks_are_told(
    agent: Toolbox, name: str, arguments: dict[str, object], reason: str
) -> None:
    failed = call(agent, name, **arguments)
    assert failed.failed
    assert reason in failed.text


def test_plan_shows_an_agent_nothing_of_other_files(agent: Toolbox, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret " * 1000)
    failed = call(agent, "plan", model=str(tmp_path / "key"))
    assert "not a GGUF file" in failed.text
    assert "secret" not in failed.text


@pytest.fixture
def pipes() -> Iterator[subprocess.Popen[bytes]]:
    """The command, as a client without an SDK has it."""
    command = [sys.executable, "-m", "hermes_cli", "mcp", "demo"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
        assert "result" in sent(process, json.dumps(request(0, "initialize", hello)).encode())
        yield process


def request(number: int, method: str, params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def sent(process: subprocess.Popen[bytes], *lines: bytes) -> dict[str, object]:
    """Send lines; return the next answer."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n".join(lines) + b"\n")
    process.stdin.flush()
    answer: dict[str, object] = json.loads(process.stdout.readline())
    return answer


def test_requests_that_cannot_be_read_are_answered(pipes: subprocess.Popen[bytes]) -> None:
    deep = b"[" * 100_000
    unknown = [b"{", b"\xff\xfe", b'{"id": 7, "params": ' + deep, b"[1]", b"x" * (33 << 20)]
    for line in unknown:
        assert sent(pipes, line)["id"] is None
    for line in (b'{"id": 7}', b'{"jsonrpc": "2.0", "id": 7, "method": 5}'):
        assert sent(pipes, line)["id"] == 7
    notes = [
        b'{"jsonrpc": "2.0", "method": "notifications/nope"}',
        b"",
        b'{"jsonrpc": "2.0", "method": "notifications/cancelled"}',
    ]
    assert sent(pipes, *notes, json.dumps(request(8, "ping", {})).encode())["id"] == 8
    half = json.dumps(request(9, "tools/call", {"name": "plan", "arguments": {"model": "\ud800"}})).encode()
    assert sent(pipes, half)["id"] == 9


def test_a_flood_of_calls_starts_few_processes_and_all_end(pipes: subprocess.Popen[bytes]) -> None:
    calls = [request(number, "tools/call", {"name": "plan", "arguments": {"model": "demo"}}) for number in range(40)]
    assert "result" in sent(pipes, *(json.dumps(call).encode() for call in calls))
    children = psutil.Process(pipes.pid).children()
    assert len(children) <= MAX_COMMANDS
    assert pipes.stdin
    pipes.stdin.close()  # the client leaves
    pipes.wait()
    _, alive = psutil.wait_procs(children, HANG)
    assert not alive
