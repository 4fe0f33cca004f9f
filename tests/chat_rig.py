"""Conversations with an engine that follows a script, and what is seen of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from fake_engine import LOADED, FakeEngine, Script

from hermes_cli.chat.agent_loop import AgentLoop
from hermes_cli.chat.backend import LocalBackend
from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.chat.view import TurnResult
from hermes_cli.engine.protocol import ModelInfo
from hermes_cli.event_loop import EventLoop
from hermes_cli.generation import ChatModel, ToolCall
from hermes_cli.prompting.families import HERMES_3, Family
from hermes_cli.prompting.messages import ToolResult
from hermes_cli.prompting.render import OurFormat


class Interrupted(BaseException):
    """What the program's own handler of SIGINT raises."""


@contextmanager
def sigint_raises() -> Iterator[None]:
    """Ctrl-C is `Interrupted`."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def calling(name: str = "now", **arguments: object) -> str:
    """A call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@dataclass
class Seen:
    """A view that keeps what it is shown."""

    text: str = ""
    reasoned: str = ""
    called: list[str] = field(default_factory=list)
    turns: list[tuple[TurnResult, bool]] = field(default_factory=list)
    results: list[tuple[str, ToolResult]] = field(default_factory=list)

    def waiting(self) -> None: ...

    def reasoning(self, text: str) -> None:
        self.reasoned += text

    def content(self, text: str) -> None:
        self.text += text

    def calling(self, name: str) -> None:
        self.called.append(name)

    def turn(self, turn: TurnResult, *, stopped: bool) -> None:
        self.turns.append((turn, stopped))

    def result(self, call: ToolCall, result: ToolResult) -> None:
        self.results.append((call.name, result))


@dataclass
class Functions:
    """Tools without arguments, called where they stand."""

    functions: dict[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        parameters = {"type": "object", "properties": {}}
        return [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in self.functions]

    def run(self, call: ToolCall) -> ToolResult:
        return ToolResult(self.functions[call.name]())


def scripted_backend(
    scripts: Iterable[Script] = (),
    *,
    engine: FakeEngine | None = None,
    family: Family = HERMES_3,
    loaded: ModelInfo = LOADED,
    name: str = "fake",
) -> LocalBackend:
    """A model that says what a script says."""
    engine = engine or FakeEngine(tuple(scripts), loaded=loaded)
    model = ChatModel(engine, loaded)
    model.choice = type(model.choice)(OurFormat(family), "for tests")
    model.takes_tools, model.reasons = model.choice.format.takes_tools, model.choice.format.reasons
    return LocalBackend(model, name, {"context_length": loaded.context}, lambda _: None)


@contextmanager
def talking(
    *scripts: Script,
    engine: FakeEngine | None = None,
    options: ChatOptions | None = None,
    loaded: ModelInfo = LOADED,
    family: Family = HERMES_3,
    **functions: Callable[[], str],
) -> Iterator[tuple[AgentLoop, Seen]]:
    """A conversation, and what is shown of it."""
    seen = Seen()
    with EventLoop() as loop:
        backend = scripted_backend(scripts, engine=engine, family=family, loaded=loaded)
        yield AgentLoop(Conversation(options), backend, Functions(functions), seen, loop), seen
