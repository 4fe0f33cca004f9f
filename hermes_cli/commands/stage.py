"""What a conversation of `hermes chat` stands on: with whom it is, by which tools, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Protocol

from hermes_cli import paths
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.options import ChatOptions
from hermes_cli.commands.opening import ModelLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager, ExitStack

    from hermes_cli.chat.agent_loop import AgentLoop
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.event_loop import EventLoop
    from hermes_cli.chat.sessions.store import CurrentSession
    from hermes_cli.chat.tools.toolbox import Toolbox
    from hermes_cli.chat.view import View
    from hermes_cli.commands.head_start import Prewarm
    from hermes_cli.commands.opening import LoadOptions
    from hermes_cli.console import Console


@dataclass(frozen=True)
class Wish:
    """What was typed, apart from how models are loaded.

    Attributes:
        model: its name; None is the best that is installed, or the only one of an endpoint.
        endpoint: address of a server that answers in place of an engine.
        resume: the session to go on with; go_on: with the latest.
        save: keep the conversation.
        options: of the conversation.
        tools: files with tools.
        servers, headers: of MCP.
        allowed: names of tools that run without a question; yes: all do.
        hide_thinking: reasoning is not shown.
    """

    model: str | None = None
    endpoint: str | None = None
    resume: str | None = None
    go_on: bool = False
    save: bool = True
    options: ChatOptions = field(default_factory=ChatOptions)
    tools: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    yes: bool = False
    hide_thinking: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether it is about a conversation from earlier."""
        return self.go_on or self.resume is not None


class Source(Protocol):
    """Where backends come from."""

    def opening(self, name: str | None) -> AbstractContextManager[Callable[[], ChatBackend]]:
        """Begin to open one; what is yielded does the rest."""

    def open(self, name: str | None) -> ChatBackend:
        """Open one."""

    def names(self) -> Sequence[str]:
        """Of those that there are."""


class Asker:
    """Asks the user, at whatever there is to type on by then."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self.ask = ask

    def __call__(self, question: str) -> str:
        """What was typed."""
        return self.ask(question)


@dataclass(frozen=True)
class Stage:
    """What was opened.

    Attributes:
        agent: the conversation. The backend that it has at its end is closed then.
        toolbox: None where nothing can be called.
        session: where it is saved; None where nothing has to be read or written.
        asker: for consent.
    """

    agent: AgentLoop
    event_loop: EventLoop
    source: Source
    toolbox: Toolbox | None
    session: CurrentSession | None
    asker: Asker


def set_stage(
    wish: Wish,
    how: LoadOptions,
    console: Console,
    start: Prewarm,
    stack: ExitStack,
    view: Callable[[ChatBackend], View],
    *,
    stays: bool,
    meanwhile: Callable[[], object] = lambda: None,
) -> Stage:
    """Open everything.

    Args:
        wish: what was typed.
        how: models are loaded.
        console: asks and warns.
        start: the event loop, and the engine's child.
        stack: what has to be closed goes onto it.
        view: shows a conversation with somebody.
        stays: it is a conversation and not a single question.
        meanwhile: is called while other processes work.

    Raises:
        HermesError: a session, a model or an endpoint, a tool or a server is not there, or not as it should be.
    """
    keeps = wish.save and (stays or wish.goes_on)
    conversation, session, model = Conversation(wish.options), None, wish.model
    if stays or wish.goes_on:
        session = _session(console, stack)
        if wish.goes_on:
            conversation = session.load(wish.resume)
            conversation.set_options(_changed(conversation.options, wish.options))
            model = model or (None if wish.endpoint else session.model or None)
    event_loop = start.event_loop
    source = _source(wish.endpoint, how if keeps else replace(how, prefixes=None), console, start)
    asker = Asker(console.ask)
    with source.opening(model) as finish:
        toolbox = _toolbox(wish, asker, console, stack) if stays or wish.tools or wish.servers else None
        meanwhile()
        backend = finish()
    agent = _agent(conversation, backend, toolbox, view, event_loop, console, stack)
    if toolbox and toolbox.servers():
        with console.working("waiting for MCP servers"):
            toolbox.ready()
    if session and keeps and not wish.goes_on:
        session.create(conversation, backend.name)
    return Stage(agent, event_loop, source, toolbox, session, asker)


def _session(console: Console, stack: ExitStack) -> CurrentSession:
    """Sessions on this disk."""
    from hermes_cli.chat.sessions.store import CurrentSession  # noqa: PLC0415 - a single question needs none

    session = CurrentSession(paths.chats_dir(), console.warn)
    stack.callback(session.close)
    return session


def _source(endpoint: str | None, how: LoadOptions, console: Console, start: Prewarm) -> Source:
    """Where backends come from."""
    if not endpoint:
        return ModelLoader(how, console, start)
    from hermes_cli.chat.endpoint.endpoint_backend import Endpoint  # noqa: PLC0415 - only where one is named

    return Endpoint(endpoint, start.event_loop, console.note, console.warn)


def _toolbox(wish: Wish, asker: Asker, console: Console, stack: ExitStack) -> Toolbox:
    """The tools that were asked for. MCP servers are on their way."""
    from hermes_cli.chat.tools.toolbox import open_toolbox  # noqa: PLC0415 - while another process works

    toolbox = open_toolbox(
        wish.tools,
        wish.servers,
        wish.headers,
        allowed=wish.allowed,
        yes=wish.yes,
        ask=asker,
        warn=console.warn,
    )
    stack.callback(toolbox.close)
    return toolbox


def _agent(
    conversation: Conversation,
    backend: ChatBackend,
    toolbox: Toolbox | None,
    view: Callable[[ChatBackend], View],
    event_loop: EventLoop,
    console: Console,
    stack: ExitStack,
) -> AgentLoop:
    from hermes_cli.chat.agent_loop import AgentLoop  # noqa: PLC0415 - imported with the backend

    agent = AgentLoop(conversation, backend, toolbox, view(backend), event_loop)

    def close() -> None:
        with console.working(f"closing {agent.backend.name}"):  # what it computed of the prompt may be kept on disk
            event_loop.run(agent.backend.close())

    stack.callback(close)
    return agent


def _changed(saved: ChatOptions, typed: ChatOptions) -> ChatOptions:
    """The options of a session, with what this command line says otherwise."""
    usual = ChatOptions()
    said = {
        one.name: value
        for one in fields(ChatOptions)
        if (value := getattr(typed, one.name)) != getattr(usual, one.name) and one.name != "sampling"
    }
    return replace(saved, **said, sampling={**saved.sampling, **typed.sampling})
