"""Runs `hermes chat`: one question and its answer (one-shot), or a conversation on the terminal (interactive)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Protocol

import typer

from hermes_cli import paths
from hermes_cli.catalog.models import Catalogue
from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.chat.endpoint.address import OWN_KEY
from hermes_cli.console import Voice, stdin_is_terminal
from hermes_cli.errors import NotFoundError, NotInstalledError
from hermes_cli.models.loader import ModelLoader, Prewarm
from hermes_cli.platforms import STDIN, echo

if TYPE_CHECKING:
    from hermes_cli.chat.agent_loop import AgentLoop
    from hermes_cli.chat.attachments import Attachment
    from hermes_cli.chat.backend import ChatBackend, LocalBackend
    from hermes_cli.chat.sessions.store import CurrentSession
    from hermes_cli.chat.terminal.terminal_view import TerminalView
    from hermes_cli.console import Console
    from hermes_cli.models.resolve import ModelRequest
    from hermes_cli.tools.toolbox import Toolbox

FEW_SESSIONS = 3
HISTORY = "chat-history"  # of lines that were typed, in the data folder


@dataclass(frozen=True)
class ChatArguments:
    """Arguments of `hermes chat`, apart from those of loading a model."""

    model: str | None = None  # its name; None is the best that is installed, or the only one of an endpoint
    endpoint: str | None = None  # address of a server that answers in place of an engine
    resume: str | None = None  # the session to go on with
    go_on: bool = False  # go on with the latest session
    save: bool = True  # keep the conversation
    options: ChatOptions = field(default_factory=ChatOptions)
    files: tuple[Attachment, ...] = ()  # what is added to the first message
    tools: tuple[str, ...] = ()  # files with tools
    # servers, headers: of MCP
    servers: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()  # names of tools that run without a question; with `yes` all do
    yes: bool = False
    hide_thinking: bool = False

    @property
    def resumes(self) -> bool:
        """An earlier conversation goes on."""
        return self.go_on or self.resume is not None


def run_oneshot(
    text: str,  # the question
    arguments: ChatArguments,  # of the command line
    settings: ModelRequest,  # of loading the model
    console: Console,  # shows the answer
    prewarm: Prewarm,  # the event loop, and the engine's child
) -> None:
    """Answer one question; with `--json` the turns that it led to are one document.

    Raise HermesError if a session, a model or an endpoint, a tool or a server is not there, or not as it should be.
    """
    from hermes_cli.chat.attachments import with_attachments

    with ExitStack() as stack:
        agent = _open_chat(arguments, settings, console, prewarm, stack, interactive=False).agent
        document = agent.ask(with_attachments(text, arguments.files)).as_document(tools=bool(agent.schemas))
        console.document({"model": agent.backend.name, **document, **agent.backend.details})


def run_interactive(arguments: ChatArguments, settings: ModelRequest, console: Console, prewarm: Prewarm) -> None:
    """Talk until the user leaves; arguments and errors are those of `run_oneshot`."""
    with ExitStack() as stack:
        stack.enter_context(echo(STDIN, on=False))  # what is typed meanwhile, the next prompt shows
        chat = _open_chat(arguments, settings, console, prewarm, stack, interactive=True)
        if chat.terminal is None or chat.toolbox is None or chat.session is None:
            raise TypeError("a conversation on a terminal has its view, tools and a session")
        from hermes_cli.chat.repl import ReplContext, run_repl, status_line
        from hermes_cli.chat.terminal.keyboard import Keyboard

        source = chat.source
        context = ReplContext(
            chat.agent,
            chat.terminal,
            console,
            prewarm.event_loop,
            chat.toolbox,
            chat.session,
            open_backend=lambda name: open_other(name, source, settings, console, prewarm),
            model_names=source.names,
            attachments=list(arguments.files),
        )
        keyboard = Keyboard(paths.data_dir() / HISTORY, lambda: status_line(context), context)
        chat.asker.ask = keyboard.ask
        length = context.backend.context_length
        size = f", {length:,} tokens of context" if length else ""
        console.note(f"{context.backend.name}{size}. /help lists commands, Ctrl-D leaves.")
        if context.conversation.entries:
            context.view.history(context.conversation)
            context.count_tokens()
        elif is_new_here():
            for line in welcome(context.backend):
                console.note(line)
        run_repl(context, keyboard)
        if name := chat.session.name:
            console.note(f"saved as {name}; hermes chat --resume {name} goes on")


def is_new_here() -> bool:
    """Return whether there are few saved conversations: somebody who may not know yet what to type."""
    try:
        return sum(entry.name.endswith(".jsonl") for entry in os.scandir(paths.chats_dir())) < FEW_SESSIONS
    except OSError:
        return True


def welcome(backend: ChatBackend) -> list[str]:
    """Return three things to try."""
    tries = [("What can you do?", "any question"), ("/file notes.txt", "adds a text file to your next message")]
    if backend.supports_reasoning is not False:
        tries.append(("/think on", "lets it reason before it answers"))
    elif backend.supports_tools is not False:
        tries.append(("/tools demo", "lets it call functions; then: What is the weather in Tokyo?"))
    else:
        tries.append(("/json any", "has it answer in JSON"))
    return ["Three things to try:", *(f"  {typed:18}{about}" for typed, about in tries)]


class Asker:
    """Asks the user, through the keyboard once there is one."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self.ask = ask

    def __call__(self, question: str) -> str:
        """Return the answer."""
        return self.ask(question)


@dataclass(frozen=True)
class OpenChat:
    """An open conversation."""

    agent: AgentLoop  # the conversation; its backend is closed in the end
    source: BackendSource  # opens other backends
    asker: Asker  # for consent to tool calls
    terminal: TerminalView | None  # the view of an interactive conversation
    toolbox: Toolbox | None  # None where nothing can be called
    session: CurrentSession | None  # None where nothing has to be read or written


def _open_chat(
    arguments: ChatArguments,
    settings: ModelRequest,
    console: Console,
    prewarm: Prewarm,
    stack: ExitStack,
    *,
    interactive: bool,
) -> OpenChat:
    """Open the session, the tools and the backend; `stack` closes them. Import what else is needed meanwhile."""
    keeps = arguments.save and (interactive or arguments.resumes)
    conversation, session, model = Conversation(arguments.options), None, arguments.model
    if interactive or arguments.resumes:
        from hermes_cli.chat.sessions.store import CurrentSession

        session = CurrentSession(paths.chats_dir(), console.warn)
        stack.callback(session.close)
        if arguments.resumes:
            conversation = session.load(arguments.resume)
            conversation.set_options(_changed(conversation.options, arguments.options))
            model = model or (None if arguments.endpoint else session.model or None)
    source = _source(arguments.endpoint, settings if keeps else replace(settings, prefixes=None), console, prewarm)
    asker = Asker(console.ask)
    with source.opening(model) as finish:
        calls = interactive or arguments.tools or arguments.servers
        toolbox = _toolbox(arguments, asker, console, stack) if calls else None
        terminal = _terminal_view(arguments, console) if interactive else None
        from hermes_cli.chat.agent_loop import AgentLoop
        from hermes_cli.chat.view import PlainView

        backend = finish()
    view = terminal or PlainView(console, backend, arguments.options, hide_thinking=arguments.hide_thinking)
    agent = AgentLoop(conversation, backend, toolbox, view, prewarm.event_loop)

    def close() -> None:
        with console.working(f"closing {agent.backend.name}"):  # KV caches of prompts may be written to disk
            prewarm.event_loop.run(agent.backend.close())

    stack.callback(close)
    if toolbox and toolbox.servers():
        with console.working("waiting for MCP servers"):
            toolbox.ready()
    if session and keeps and not arguments.resumes:
        session.create(conversation, backend.name)
    return OpenChat(agent, source, asker, terminal, toolbox, session)


def _changed(saved: ChatOptions, typed: ChatOptions) -> ChatOptions:
    """Return the options of a session with those that this command line changes."""
    default = ChatOptions()
    changes = {
        option.name: value
        for option in fields(ChatOptions)
        if (value := getattr(typed, option.name)) != getattr(default, option.name) and option.name != "sampling"
    }
    return replace(saved, **changes, sampling={**saved.sampling, **typed.sampling})


def _source(endpoint: str | None, settings: ModelRequest, console: Console, prewarm: Prewarm) -> BackendSource:
    if not endpoint:
        return LocalModels(settings, console, prewarm)
    from hermes_cli.chat.endpoint.endpoint_backend import Endpoint
    from hermes_cli.server.running import key_of

    if key := key_of(endpoint):  # of a server of this user, who need not copy it
        os.environ.setdefault(OWN_KEY, key)
    return Endpoint(endpoint, prewarm.event_loop, console.note, console.warn)


def open_other(
    name: str, source: BackendSource, settings: ModelRequest, console: Console, prewarm: Prewarm
) -> ChatBackend:
    """Open another model: at a service, as `openrouter:NAME`, else where the one before was."""
    from hermes_cli.chat.endpoint.providers import hosted, hosted_id

    if (service := hosted(name)) is None:
        return source.open(name)
    from hermes_cli.catalog.load import load_catalogue

    provider, model = service
    backend = _source(provider.host, settings, console, prewarm).open(hosted_id(provider, model, load_catalogue()))
    console.note(f"all of this conversation goes to {provider.host} from now on")
    return backend


def _toolbox(arguments: ChatArguments, asker: Asker, console: Console, stack: ExitStack) -> Toolbox:
    """Open the tools that were asked for; MCP servers may still be starting."""
    from hermes_cli.tools.toolbox import open_toolbox

    tools, servers, headers = arguments.tools, arguments.servers, arguments.headers
    toolbox = open_toolbox(
        tools, servers, headers, allowed=arguments.allowed, yes=arguments.yes, ask=asker, warn=console.warn
    )
    stack.callback(toolbox.close)
    return toolbox


def _terminal_view(arguments: ChatArguments, console: Console) -> TerminalView:
    """Make the view, and import the other modules of a conversation: 0.2 s."""
    import hermes_cli.chat.repl
    import hermes_cli.chat.terminal.keyboard  # noqa: F401
    from hermes_cli.chat.terminal.terminal_view import TerminalView

    return TerminalView(console, hide_thinking=arguments.hide_thinking)


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
        self._loader = ModelLoader(settings, console, prewarm, self._recommend, self._fetch)

    def names(self) -> list[str]:
        """Return the names of the models that are on this disk."""
        from hermes_cli.catalog.load import load_catalogue
        from hermes_cli.catalog.names import DEMO
        from hermes_cli.store.inventory import inventory

        models = inventory(load_catalogue())
        return [DEMO, *sorted({model.name for model in models if model.present == model.count})]

    def open(self, name: str | None) -> LocalBackend:
        """Load a model, to be closed by the caller; arguments and errors are those of `ModelLoader.begin`."""
        try:
            with self.opening(name) as finish:
                return finish()
        except typer.Exit:  # of `pull`, to which the answer was no
            raise NotFoundError(f"{name} was not fetched.", hint="the conversation goes on as before.") from None

    @contextmanager
    def opening(self, name: str | None) -> Iterator[Callable[[], LocalBackend]]:
        """Begin to load a model, as `open`."""
        with self._loader.begin(name) as finish:

            def backend() -> LocalBackend:
                from hermes_cli.chat.backend import LocalBackend

                loaded = finish()
                return LocalBackend(loaded.model, loaded.planned.name, loaded.details, self._console.warn)

            yield backend

    def _fetch(self, missing: NotInstalledError) -> bool:
        """Ask whether to fetch a model that is not here, and do; return False where nobody can be asked."""
        if self._console.voice is not Voice.HUMAN or not stdin_is_terminal():
            return False
        from hermes_cli.commands.pull import command

        self._console.note(missing.message)
        command([missing.pull])
        return True

    def _recommend(self, settings: ModelRequest, catalogue: Catalogue) -> ModelRequest:
        from hermes_cli.commands.pull import default_model
        from hermes_cli.hardware.probe import probe
        from hermes_cli.hardware.selection import select_devices
        from hermes_cli.planning.recommend import RecommendOptions

        overrides = settings.overrides
        machine = select_devices(probe(measure=False), overrides.devices, overrides.reserve)
        return default_model("chat", settings, RecommendOptions(), catalogue, machine, self._console)
