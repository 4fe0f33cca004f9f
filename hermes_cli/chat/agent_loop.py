"""One question in a conversation: the model answers, its tool calls are run, and so on until it calls no more tools."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hermes_cli.chat.conversation import Conversation, TurnUsage
from hermes_cli.chat.view import TurnResult, View
from hermes_cli.errors import ContextFullError, HermesError, UsageError
from hermes_cli.event_loop import EventLoop
from hermes_cli.generation import (
    MAX_ROUNDS,
    CallFinished,
    CallStarted,
    Content,
    Done,
    Event,
    Message,
    Reasoning,
    ToolCall,
)

if TYPE_CHECKING:
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.prompting.messages import ToolResult

STOPPED = "the user stopped this call"


class ToolRunner(Protocol):
    """Runs tool calls (tools/toolbox.py)."""

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """Declarations of the tools in OpenAI's shape."""

    def run(self, call: ToolCall) -> ToolResult:
        """Run a call; failures are results. Ctrl-C ends it with the exception that SIGINT raises."""


@dataclass
class AgentResult:
    """The turns that a question led to, and the tool calls that were run between them."""

    turns: list[TurnResult] = field(default_factory=list)
    tool_runs: list[tuple[ToolCall, ToolResult]] = field(default_factory=list)

    def as_document(self, *, tools: bool) -> dict[str, Any]:
        """Return what `--json` prints; without tools to run them, calls are those of the last turn, without results.

        Returns:
            text, reasoning, tool_calls with results, finish_reason, usage (tokens of all turns together) and timings
            (milliseconds and tokens per second, measured).
        """
        calls = [
            {"name": call.name, "arguments": call.arguments, "result": result.text} for call, result in self.tool_runs
        ]
        if not tools:
            calls = [{"name": call.name, "arguments": call.arguments} for call in self.turns[-1].calls]
        done = [turn.done for turn in self.turns if turn.done]
        counted = ("prompt", "cached", "completion", "reasoning", "drafted", "accepted")
        usage = {f"{name}_tokens": sum(getattr(turn, f"{name}_tokens") for turn in done) for name in counted}
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        prompt_seconds = sum(turn.prompt_seconds for turn in done)
        seconds = sum(turn.completion_seconds for turn in done)
        return {
            "text": self.turns[-1].content,
            "reasoning": self.turns[-1].reasoning or None,
            "tool_calls": calls,
            "finish_reason": done[-1].reason if done else None,
            "usage": {**usage, "total_tokens": prompt + completion},
            "timings": {
                "prompt_ms": round(prompt_seconds * 1000, 2),
                "prompt_per_second": _rate(prompt - usage["cached_tokens"], prompt_seconds),
                "predicted_ms": round(seconds * 1000, 2),
                "predicted_per_second": _rate(completion, seconds),
            },
        }


def _rate(tokens: int, seconds: float) -> float | None:
    return round(tokens / seconds, 1) if tokens and seconds > 0 else None


class AgentLoop:
    """A conversation between a user, a model and tools. `offers_tools` switches the tools on and off."""

    def __init__(
        self,
        conversation: Conversation,
        backend: ChatBackend,
        tools: ToolRunner | None,
        view: View,
        event_loop: EventLoop,
    ) -> None:
        self.conversation, self.backend, self.tools, self.view = conversation, backend, tools, view
        self.offers_tools = True
        self._event_loop = event_loop

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """Declarations of the tools that the model is offered now."""
        return self.tools.schemas if self.tools and self.offers_tools else ()

    def ask(self, text: str) -> AgentResult:
        """Add a message of the user, and have it answered; raise HermesError if it cannot be.

        If it is interrupted, the conversation holds what came until then, and every call in it has a result. After
        ContextFullError and UsageError the message is removed again if nothing came of it.
        """
        conversation = self.conversation
        before = len(conversation.entries)
        conversation.add(Message("user", text))
        try:
            return self._run_turns()
        except (ContextFullError, UsageError):  # it would be refused again with the next message
            if len(conversation.entries) == before + 1:
                conversation.truncate(before)
            raise

    def retry(self) -> AgentResult:
        """Remove all that followed the user's last message, and have it answered again; errors as of `ask`."""
        at = self.conversation.last_user_index
        if at is None:
            raise HermesError("nothing was asked yet.", hint="type a question.")
        self.conversation.truncate(at + 1)
        return self._run_turns()

    def _run_turns(self) -> AgentResult:
        result = AgentResult()
        for _ in range(MAX_ROUNDS):
            turn = self._run_turn()
            result.turns.append(turn)
            if not turn.calls or self.tools is None or not self.schemas:
                return result
            self._run_tools(self.tools, turn.calls, result)
        raise HermesError(
            f"the model called tools {MAX_ROUNDS} times in a row without an answer.",
            hint="ask for less at once, or check what the tools return.",
        )

    def _run_turn(self) -> TurnResult:
        """Run one turn of the model, show it as it comes, and add it to the conversation however it ends."""
        turn, ended = TurnResult(), False
        schemas = self.schemas  # MCP servers may be asked for them, which cannot wait inside the event loop
        self.view.waiting()
        try:
            self._event_loop.run(self._generate(turn, schemas))
            ended = True
        finally:
            self.view.turn(turn, stopped=not ended)
            if ended or turn.content.strip() or turn.reasoning.strip() or turn.calls:
                calls = tuple(turn.calls) if ended else ()
                message = Message("assistant", turn.content or None, calls, turn.reasoning or None)
                self.conversation.add(message, model=self.backend.name, usage=_usage_of(turn), unfinished=not ended)
        return turn

    async def _generate(self, turn: TurnResult, schemas: Sequence[dict[str, Any]]) -> None:
        conversation = self.conversation
        events = self.backend.generate(conversation.messages, schemas, conversation.prompt_options)
        thinking_since = None
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Reasoning):
                    now = time.monotonic()
                    thinking_since = thinking_since or now
                    turn.reasoning_seconds = now - thinking_since
                self._take(event, turn)

    def _take(self, event: Event, turn: TurnResult) -> None:
        if isinstance(event, Content):
            turn.content += event.text
            self.view.content(event.text)
        elif isinstance(event, Reasoning):
            turn.reasoning += event.text
            self.view.reasoning(event.text)
        elif isinstance(event, CallStarted):
            self.view.calling(event.name)
        elif isinstance(event, CallFinished) and event.complete:
            turn.calls.append(event.call)
        elif isinstance(event, Done):
            turn.done = event

    def _run_tools(self, tools: ToolRunner, calls: Sequence[ToolCall], result: AgentResult) -> None:
        """Run the calls of a turn in their order. On an interrupt the rest get results, too: none may lack one."""
        remaining = list(calls)
        try:
            while remaining:
                output = tools.run(remaining[0])
                self.view.result(remaining[0], output)
                result.tool_runs.append((remaining[0], output))
                self._add_result(remaining.pop(0), output.text)
        finally:
            for call in remaining:
                self._add_result(call, json.dumps({"error": STOPPED}))

    def _add_result(self, call: ToolCall, text: str) -> None:
        self.conversation.add(Message("tool", text, tool_call_id=call.id, name=call.name))


def _usage_of(turn: TurnResult) -> TurnUsage:
    done = turn.done
    if done is None:
        return TurnUsage(reasoning_seconds=turn.reasoning_seconds)
    return TurnUsage(
        done.prompt_tokens,
        done.cached_tokens,
        done.completion_tokens,
        done.reasoning_tokens,
        done.prompt_seconds,
        done.completion_seconds,
        turn.reasoning_seconds,
    )
