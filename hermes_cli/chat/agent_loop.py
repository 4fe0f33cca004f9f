"""One question in a conversation: the model answers, its calls are run, it goes on, until it calls nothing more."""

from __future__ import annotations

import json
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hermes_cli.chat.conversation import TurnUsage
from hermes_cli.chat.view import ToolResult, TurnResult
from hermes_cli.errors import ContextFullError, HermesError, UsageError
from hermes_cli.generation import CallFinished, CallStarted, Content, Done, Message, Reasoning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.conversation import Conversation
    from hermes_cli.chat.event_loop import EventLoop
    from hermes_cli.chat.view import View
    from hermes_cli.generation import Event, ToolCall

MAX_ROUNDS = 10
STOPPED = "the user stopped this call"


class ToolRunner(Protocol):
    """Runs calls (toolbox.py)."""

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """Declarations of the tools in OpenAI's shape."""

    def run(self, call: ToolCall) -> ToolResult:
        """What comes of a call; failures are results. Ctrl-C ends it with whatever SIGINT raises."""


class NoTools:
    """Runs nothing: there is nothing to be called."""

    schemas: Sequence[dict[str, Any]] = ()

    def run(self, call: ToolCall) -> ToolResult:
        """A failure; nothing was offered that could be called."""
        return ToolResult(json.dumps({"error": f"there is no tool {call.name}"}), failed=True)


@dataclass(frozen=True)
class ToolRun:
    """A call, and what came of it."""

    call: ToolCall
    result: ToolResult


@dataclass
class AgentResult:
    """What a question led to: the turns of the model, and the calls that were run between them."""

    answers: list[TurnResult]
    ran: list[ToolRun]


class AgentLoop:
    """A conversation between a user, a partner and tools."""

    def __init__(
        self, conversation: Conversation, partner: ChatBackend, runner: ToolRunner, view: View, loop: EventLoop
    ) -> None:
        self.conversation, self.partner, self.runner, self.view = conversation, partner, runner, view
        self.offers_tools = True
        self._loop = loop

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """The tools that the model is offered now."""
        return self.runner.schemas if self.offers_tools else ()

    def ask(self, text: str) -> AgentResult:
        """Say something, and have it answered.

        Whatever interrupts it, what came until then is in the conversation, and every call in it has a result.

        Raises:
            ContextFullError: it is too long.
            UsageError: the partner cannot be asked this. In both cases it was not said, if nothing came of it.
            HermesError: the partner cannot answer, or its calls never end.
        """
        conversation = self.conversation
        before = len(conversation.said)
        conversation.say(Message("user", text))
        outcome = AgentResult([], [])
        try:
            self._go_on(outcome)
        except (ContextFullError, UsageError):  # it would be refused again, with whatever is said next
            if len(conversation.said) == before + 1:
                conversation.back_to(before)
            raise
        return outcome

    def again(self) -> AgentResult:
        """Have the user's last message answered once more, in place of what followed it.

        Raises:
            HermesError: as `ask`; the answer that was there is gone, then.
        """
        at = self.conversation.last_question
        if at is None:
            raise HermesError("nothing was asked yet.", hint="type a question.")
        self.conversation.back_to(at + 1)
        outcome = AgentResult([], [])
        self._go_on(outcome)
        return outcome

    def _go_on(self, outcome: AgentResult) -> None:
        for _ in range(MAX_ROUNDS):
            answer = self._turn()
            outcome.answers.append(answer)
            if not answer.calls or not self.schemas:
                return
            self._run(answer.calls, outcome)
        raise HermesError(
            f"the model called tools {MAX_ROUNDS} times in a row without an answer.",
            hint="ask for less at once, or check what the tools return.",
        )

    def _turn(self) -> TurnResult:
        """One turn of the model, shown as it comes, and kept however it ends."""
        answer, ended = TurnResult(), False
        tools = self.schemas  # servers may be asked for them again, which cannot wait inside the loop
        self.view.waiting()
        try:
            self._loop.run(self._answer(answer, tools))
            ended = True
        finally:
            calls = answer.calls if ended else []
            self.view.turn(answer, stopped=not ended)
            if ended or self._is_something(answer):
                self._keep(answer, calls, unfinished=not ended)
        return answer

    async def _answer(self, answer: TurnResult, tools: Sequence[dict[str, Any]]) -> None:
        conversation = self.conversation
        events = self.partner.answer(conversation.messages, tools, conversation.told)
        thinking_since = None
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Reasoning):
                    now = time.monotonic()
                    thinking_since = thinking_since or now
                    answer.reasoning_seconds = now - thinking_since
                self._take(event, answer)

    def _take(self, event: Event, answer: TurnResult) -> None:
        if isinstance(event, Content):
            answer.content += event.text
            self.view.content(event.text)
        elif isinstance(event, Reasoning):
            answer.reasoning += event.text
            self.view.reasoning(event.text)
        elif isinstance(event, CallStarted):
            self.view.calling(event.name)
        elif isinstance(event, CallFinished) and event.complete:
            answer.calls.append(event.call)
        elif isinstance(event, Done):
            answer.done = event

    def _keep(self, answer: TurnResult, calls: Sequence[ToolCall], *, unfinished: bool) -> None:
        message = Message("assistant", answer.content or None, tuple(calls), answer.reasoning or None)
        self.conversation.say(message, model=self.partner.name, spent=_spent(answer), unfinished=unfinished)

    def _run(self, calls: Sequence[ToolCall], outcome: AgentResult) -> None:
        """Run the calls of a turn in their order. Interrupted, the rest get results, too: none may be without."""
        left = list(calls)
        try:
            while left:
                result = self.runner.run(left[0])
                self.view.result(left[0], result)
                outcome.ran.append(ToolRun(left[0], result))
                self._answered(left.pop(0), result)
        finally:
            for call in left:
                self._answered(call, ToolResult(json.dumps({"error": STOPPED}), failed=True))

    def _answered(self, call: ToolCall, result: ToolResult) -> None:
        self.conversation.say(Message("tool", result.text, tool_call_id=call.id, name=call.name))

    @staticmethod
    def _is_something(answer: TurnResult) -> bool:
        return bool(answer.content.strip() or answer.reasoning.strip() or answer.calls)


def _spent(answer: TurnResult) -> TurnUsage:
    done = answer.done
    if done is None:
        return TurnUsage(reasoning_seconds=answer.reasoning_seconds)
    return TurnUsage(
        done.prompt_tokens,
        done.cached_tokens,
        done.completion_tokens,
        done.reasoning_tokens,
        done.prompt_seconds,
        done.completion_seconds,
        answer.reasoning_seconds,
    )
