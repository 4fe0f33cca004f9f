"""Opens a conversation of `hermes chat`: its backend, its tools, and its session."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Protocol

from hermes_cli import paths
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.options import ChatOptions
from hermes_cli.models.loader import ModelLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager, ExitStack

    from hermes_cli.catalog.models import Catalogue
    from hermes_cli.chat.agent_loop import AgentLoop
    from hermes_cli.chat.backend import ChatBackend, LocalBackend
    from hermes_cli.chat.sessions.store import CurrentSession
    from hermes_cli.chat.tools.toolbox import Toolbox
    from hermes_cli.chat.view import View
    from hermes_cli.console import Console
    from hermes_cli.event_loop import EventLoop
    from hermes_cli.models.loader import LoadedModel, Prewarm
    from hermes_cli.models.resolve import ModelRequest


@dataclass(frozen=True)
class ChatArguments:
    """Arguments of `hermes chat`, apart from those of loading a model.

    Attributes:
        model: its name; None is the best that is installed, or the only one of an endpoint.
        endpoint: address of a server that answers in place of an engine.
        resume: the session to go on with.
        go_on: go on with the latest session.
        save: keep the conversation.
        options: of the conversation.
        tools: files with tools.
        servers, headers: of MCP.
        allowed: names of tools that run without a question.
        yes: all tools do.
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
    def resumes(self) -> bool:
        """An earlier conversation goes on."""
        return self.go_on or self.resume is not None


class BackendSource(Protocol):
    """Opens backends: models of this disk, or those of an endpoint."""

    def opening(self, name: str | None) -> AbstractContextManager[Callable[[], ChatBackend]]:
        """Begin to open a backend; the yielded function does the rest."""

    def open(self, name: str | None) -> ChatBackend:
        """Open a backend."""

    def names(self) -> Sequence[str]:
        """Return the names of the models."""


class LocalModels:
    """Opens models of this disk in engines of this program."""

    def __init__(self, settings: ModelRequest, console: Console, prewarm: Prewarm) -> None:
        self._console = console
        self._loader = ModelLoader(settings, console, prewarm, self._recommend)

    def names(self) -> list[str]:
        """Return the names of the models that are on this disk."""
        from hermes_cli.catalog.load import load_catalogue  # noqa: PLC0415 - nobody asks before a model is loaded
        from hermes_cli.catalog.names import DEMO  # noqa: PLC0415
        from hermes_cli.store.inventory import inventory  # noqa: PLC0415

        models = inventory(load_catalogue())
        return [DEMO, *sorted({model.name for model in models if model.present == model.count})]

    def open(self, name: str | None) -> LocalBackend:
        """Load a model, to be closed by the caller.

        Raises:
            HermesError: as `opening` and the function that it yields.
        """
        with self.opening(name) as finish:
            return finish()

    @contextmanager
    def opening(self, name: str | None) -> Iterator[Callable[[], LocalBackend]]:
        """Begin to load a model; arguments and errors are those of `ModelLoader.begin`."""
        with self._loader.begin(name) as finish:
            yield lambda: self._backend(finish())

    def _backend(self, loaded: LoadedModel) -> LocalBackend:
        from hermes_cli.chat.backend import LocalBackend  # noqa: PLC0415 - imported while the engine loads

        return LocalBackend(loaded.model, loaded.planned.name, loaded.details, self._console.warn)

    def _recommend(self, settings: ModelRequest, catalogue: Catalogue) -> ModelRequest:
        from hermes_cli.commands.default_model import default_model  # noqa: PLC0415 - only where none is named
        from hermes_cli.hardware.probe import probe  # noqa: PLC0415
        from hermes_cli.planning.recommend import RecommendOptions  # noqa: PLC0415

        machine = probe(measure=False)
        return default_model("chat", settings, RecommendOptions(), catalogue, machine, self._console)


class Asker:
    """Asks the user, through the keyboard once there is one."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self.ask = ask

    def __call__(self, question: str) -> str:
        """Return the answer."""
        return self.ask(question)


@dataclass(frozen=True)
class OpenChat:
    """An open conversation.

    Attributes:
        agent: the conversation; its backend is closed in the end.
        source: opens other backends.
        toolbox: None where nothing can be called.
        session: None where nothing has to be read or written.
        asker: for consent.
    """

    agent: AgentLoop
    event_loop: EventLoop
    source: BackendSource
    toolbox: Toolbox | None
    session: CurrentSession | None
    asker: Asker


def open_chat(
    arguments: ChatArguments,
    settings: ModelRequest,
    console: Console,
    prewarm: Prewarm,
    stack: ExitStack,
    view: Callable[[ChatBackend], View],
    *,
    interactive: bool,
    meanwhile: Callable[[], object] = lambda: None,
) -> OpenChat:
    """Open everything.

    Args:
        arguments: of the command line.
        settings: of loading models.
        console: asks and warns.
        prewarm: the event loop, and the engine's child.
        stack: closes what was opened.
        view: makes the view of a conversation with a backend.
        interactive: it is a conversation and not a single question.
        meanwhile: is called while other processes work.

    Raises:
        HermesError: a session, a model or an endpoint, a tool or a server is not there, or not as it should be.
    """
    keeps = arguments.save and (interactive or arguments.resumes)
    conversation, session, model = Conversation(arguments.options), None, arguments.model
    if interactive or arguments.resumes:
        session = _session(console, stack)
        if arguments.resumes:
            conversation = session.load(arguments.resume)
            conversation.set_options(_changed(conversation.options, arguments.options))
            model = model or (None if arguments.endpoint else session.model or None)
    source = _source(arguments.endpoint, settings if keeps else replace(settings, prefixes=None), console, prewarm)
    asker = Asker(console.ask)
    with source.opening(model) as finish:
        calls = interactive or arguments.tools or arguments.servers
        toolbox = _toolbox(arguments, asker, console, stack) if calls else None
        meanwhile()
        backend = finish()
    agent = _agent(conversation, backend, toolbox, view, prewarm.event_loop, console, stack)
    if toolbox and toolbox.servers():
        with console.working("waiting for MCP servers"):
            toolbox.ready()
    if session and keeps and not arguments.resumes:
        session.create(conversation, backend.name)
    return OpenChat(agent, prewarm.event_loop, source, toolbox, session, asker)


def _session(console: Console, stack: ExitStack) -> CurrentSession:
    from hermes_cli.chat.sessions.store import CurrentSession  # noqa: PLC0415 - a single question needs none

    session = CurrentSession(paths.chats_dir(), console.warn)
    stack.callback(session.close)
    return session


def _source(endpoint: str | None, settings: ModelRequest, console: Console, prewarm: Prewarm) -> BackendSource:
    if not endpoint:
        return LocalModels(settings, console, prewarm)
    from hermes_cli.chat.endpoint.endpoint_backend import Endpoint  # noqa: PLC0415 - only where one is named

    return Endpoint(endpoint, prewarm.event_loop, console.note, console.warn)


def _toolbox(arguments: ChatArguments, asker: Asker, console: Console, stack: ExitStack) -> Toolbox:
    """Open the tools that were asked for; MCP servers may still be starting."""
    from hermes_cli.chat.tools.toolbox import open_toolbox  # noqa: PLC0415 - while another process works

    toolbox = open_toolbox(
        arguments.tools,
        arguments.servers,
        arguments.headers,
        allowed=arguments.allowed,
        yes=arguments.yes,
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
        with console.working(f"closing {agent.backend.name}"):  # KV caches of prompts may be written to disk
            event_loop.run(agent.backend.close())

    stack.callback(close)
    return agent


def _changed(saved: ChatOptions, typed: ChatOptions) -> ChatOptions:
    """Return the options of a session with those that this command line changes."""
    default = ChatOptions()
    changes = {
        option.name: value
        for option in fields(ChatOptions)
        if (value := getattr(typed, option.name)) != getattr(default, option.name) and option.name != "sampling"
    }
    return replace(saved, **changes, sampling={**saved.sampling, **typed.sampling})
