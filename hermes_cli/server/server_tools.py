"""Tools that the server itself runs, of MCP servers that its operator named, for clients that ask for it.

A request asks by `server_tools: true` or by the model's name with `+tools`. The model is offered the tools that the
operator allows, beside the client's own; their calls are run here, and the model goes on, until it answers or calls a
tool of the client.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.generation import (
    MAX_ROUNDS,
    CallArguments,
    CallStarted,
    ChatModel,
    Done,
    Message,
    Reasoning,
    ToolCall,
    TurnRequest,
)
from hermes_cli.prompting.messages import ToolResult
from hermes_cli.server.choice_stream import ContentDelta, Delta, stream_turn
from hermes_cli.server.openai.requests import ChatRequest
from hermes_cli.server.request_stats import warn

if TYPE_CHECKING:
    from hermes_cli.tools.toolbox import Toolbox

SUFFIX = "+tools"


@dataclass(frozen=True)
class ToolRound:
    """Calls that were run, with their results, and the end of the turn that made them."""

    runs: list[tuple[ToolCall, ToolResult]]
    done: Done


def wants_tools(body: ChatRequest) -> bool:
    """Return whether a client asks that the server run its tools."""
    return bool(body.server_tools) or (body.model or "").endswith(SUFFIX)


class ServerTools:
    """The tools that the server runs; the toolbox belongs to the caller."""

    def __init__(self, toolbox: Toolbox) -> None:
        """Take the tools of a toolbox that its consent allows, and no others."""
        self._toolbox = toolbox

    async def offer(self, body: ChatRequest) -> tuple[ChatRequest, frozenset[str]]:
        """Return the request with the server's tools beside its own, and their names. A client's name wins."""
        own = {_name(tool) for tool in body.tools or ()}
        offered = {name: schema for name, schema in (await asyncio.to_thread(self._allowed)).items() if name not in own}
        model = (body.model or "").removesuffix(SUFFIX)
        tools = [*(body.tools or ()), *offered.values()]
        return body.model_copy(update={"model": model, "tools": tools}), frozenset(offered)

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call; a failure is its result."""
        try:
            return await asyncio.to_thread(self._toolbox.run, call)
        except HermesError as error:
            return ToolResult(json.dumps({"error": error.message}), failed=True)

    def _allowed(self) -> dict[str, dict[str, Any]]:
        schemas = {schema["function"]["name"]: schema for schema in self._toolbox.schemas}
        return {name: schemas[name] for name, *_, consent in self._toolbox.listing() if consent == "allowed"}


@dataclass
class _Turn:
    """The text, reasoning and calls of a turn so far."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, tuple[CallStarted, list[str]]] = field(default_factory=dict)

    def take(self, delta: Delta) -> None:
        if isinstance(delta, ContentDelta):
            self.text += delta.text
        elif isinstance(delta, Reasoning):
            self.reasoning += delta.text
        elif isinstance(delta, CallStarted):
            self.calls[delta.index] = (delta, [])
        else:
            self.calls[delta.index][1].append(delta.text)

    def message(self) -> Message:
        calls = tuple(ToolCall(call.name, json.loads("".join(texts)), call.id) for call, texts in self.calls.values())
        return Message("assistant", self.text or None, calls, self.reasoning or None)


async def run_turns(
    model: ChatModel, turn: TurnRequest, tools: ServerTools, names: frozenset[str], *, reasoning: bool
) -> AsyncGenerator[Delta | ToolRound | Done, None]:
    """Generate turns until one has no call of the server's tools, whose calls are not among the deltas.

    Raise UsageError if the model calls them without end.
    """
    for _ in range(MAX_ROUNDS):
        made, done = _Turn(), None
        deltas = stream_turn(model, turn)
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, Done):
                    done = delta
                    continue
                made.take(delta)
                if isinstance(delta, CallStarted | CallArguments):
                    call = made.calls[delta.index][0]
                    if call.name not in names:
                        before = sum(made.calls[index][0].name in names for index in range(delta.index))
                        yield replace(delta, index=delta.index - before)
                elif reasoning or not isinstance(delta, Reasoning):
                    yield delta
        if done is None:
            return
        called = [call.name for call, _ in made.calls.values()]
        if done.reason != "tool_calls" or not names.intersection(called):
            yield done
            return
        if not names.issuperset(called):
            warn("the model called tools of the server beside yours in one turn; those of the server were not run")
            yield done
            return
        message = made.message()
        runs = [(call, await tools.run(call)) for call in message.tool_calls]
        yield ToolRound(runs, done)
        results = [Message("tool", result.text, tool_call_id=call.id, name=call.name) for call, result in runs]
        turn = replace(turn, messages=[*turn.messages, message, *results], continues=False)
    raise UsageError(
        f"led to {MAX_ROUNDS} rounds of tool calls without an answer.", field="messages", hint="ask for less."
    )


def _name(tool: Any) -> str | None:  # noqa: ANN401 - as it was sent
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None
