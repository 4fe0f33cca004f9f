"""Slash commands about the model, its options and its tools."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.attachments import text_or_file
from hermes_cli.chat.conversation import ChatOptions, read_schema
from hermes_cli.chat.slash.command import complete_path, slash_command
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.tools.config import read_chat_file

if TYPE_CHECKING:
    from hermes_cli.chat.repl import ReplContext

DEFAULT = "default"
SAMPLING = tuple(field.name for field in fields(SamplingOptions) if field.type in {"float", "int", "int | None"})
_LIMITS = {"max_tokens": 1, "think_budget": 0}  # smallest value of each
SETTINGS = (*SAMPLING, *_LIMITS)


@slash_command("/model", "[NAME]", "go on with another model, or list them", lambda context, _: context.model_names())
def _model(context: ReplContext, argument: str) -> None:
    """List models, or load another one. The old one is unloaded first: both may not fit."""
    if not argument:
        for name in context.model_names():
            context.print(f"{'*' if name == context.backend.name else ' '} {name}")
        context.console.note("/model NAME goes on with another one; the conversation stays")
        return
    change_model(context, argument)


def change_model(context: ReplContext, name: str) -> None:
    """Load another model in place of the one that answers. Raise HermesError if that cannot be; the old one stays."""
    old = context.backend
    context.event_loop.run(old.unload())
    try:
        new = context.open_backend(name)
    except HermesError:
        context.console.note(f"{old.name} stays")
        raise
    context.event_loop.run(old.close())
    context.agent.backend = new
    length = f", {new.context_length:,} tokens of context" if new.context_length else ""
    context.console.note(f"{new.name}{length}; it reads the conversation with your next message")
    options = context.conversation.options
    if new.supports_reasoning is False and (options.think or options.think_budget is not None):
        context.conversation.set_options(replace(options, think=None, think_budget=None))
        context.console.note("it has no reasoning mode: think is off")
    if new.supports_tools is False and context.toolbox.schemas:
        context.console.note("it was not trained for tools: they are not offered to it")


@slash_command(
    "/think",
    "[on|off|budget N|show]",
    "reason before answering; show the last reasoning",
    lambda *_: ("on", "off", "budget ", DEFAULT, "show"),
)
def _think(context: ReplContext, argument: str) -> None:
    options = context.conversation.options
    word, _, value = argument.partition(" ")
    if word == "show":
        context.view.show_reasoning()
        return
    if word not in {"", "on", "off", "budget", DEFAULT} or (value and word != "budget"):
        raise UsageError(f"/think {argument[:40]}: not understood.", hint="/think on, off, budget N, default or show")
    if word in {"on", "budget"} and context.backend.supports_reasoning is False:
        raise UsageError(
            f"{context.backend.name} has no reasoning mode.", hint="/model with Hermes 4 or DeepHermes 3 has one."
        )
    if word == "budget":
        context.conversation.set_options(replace(options, think=True, think_budget=_tokens("budget", value, 0)))
    elif word:
        think = {"on": True, "off": False}.get(word)
        context.conversation.set_options(replace(options, think=think, think_budget=None))
    context.console.note(f"think: {thinking_label(context.conversation.options)}")


def thinking_label(options: ChatOptions) -> str:
    """Return how reasoning is switched, for the status line."""
    label = {None: "auto", True: "on", False: "off"}[options.think]
    budget = options.think_budget
    return label if budget is None else f"{label}, at most {budget:,} tokens"


@slash_command("/system", "[TEXT|@FILE|default]", "show or change the system prompt", lambda *_: (DEFAULT,))
def _system(context: ReplContext, argument: str) -> None:
    conversation = context.conversation
    if argument:
        system = None if argument == DEFAULT else text_or_file(argument)
        conversation.set_options(replace(conversation.options, system=system))
    context.print(conversation.options.system or "(no system prompt of yours)")
    if not argument:
        context.console.note("/system TEXT changes it from the next message on, /system default leaves it out")


@slash_command("/set", "[NAME VALUE|default]", "sampling and limits", lambda *_: [f"{name} " for name in SETTINGS])
def _set(context: ReplContext, argument: str) -> None:
    name, _, value = argument.partition(" ")
    name, value = name.lower().replace("-", "_"), value.strip()
    options = context.conversation.options
    if not name:
        rows = [[key, str(number)] for key, number in sorted(options.sampling.items())]
        rows += [[key, str(number)] for key in _LIMITS if (number := getattr(options, key)) is not None]
        if rows:
            context.console.table(["setting", "value"], rows)
        context.console.note(f"all else is as the model recommends; /set NAME VALUE changes {', '.join(SETTINGS)}")
        return
    if name in _LIMITS:
        limit: dict[str, Any] = {name: None if value == DEFAULT else _tokens(name, value, _LIMITS[name])}
        options = replace(options, **limit)
    elif name in SAMPLING:
        options = replace(options, sampling=_sampling(options, name, value))
    else:
        raise UsageError(f"there is no setting {name[:40]}.", hint=f"there are {', '.join(SETTINGS)}.")
    context.conversation.set_options(options)
    context.console.note(f"{name}: {value}")


def _sampling(options: ChatOptions, name: str, value: str) -> dict[str, float | int]:
    others = {key: number for key, number in options.sampling.items() if key != name}
    if value == DEFAULT:
        return others
    for kind in (int, float):
        with suppress(ValueError):
            changed: dict[str, Any] = {**others, name: kind(value)}
            SamplingOptions(**changed)  # raises UsageError where it is out of range
            return changed
    raise UsageError(
        f"{name}: {value[:40] or 'nothing'} is not a number.", hint=f"/set {name} 0.7, or /set {name} default"
    )


def _tokens(name: str, value: str, minimum: int) -> int:
    try:
        number = int(value.replace(",", ""))
    except ValueError:
        number = minimum - 1
    if number < minimum:
        raise UsageError(
            f"{name}: {value[:40] or 'nothing'} is not a whole number from {minimum}.", hint="give a number of tokens."
        )
    return number


@slash_command(
    "/json",
    "SCHEMA|any|off",
    "answers conform to a JSON schema, a file or typed",
    lambda _, typed: ["any", "off", *complete_path(typed)],
)
def _json(context: ReplContext, argument: str) -> None:
    options = context.conversation.options
    if argument == "off":
        options = replace(options, schema=None)
    elif argument in {"any", "on"}:
        options = replace(options, schema=True)
    elif argument:
        options = replace(options, schema=read_schema(argument))
    context.conversation.set_options(options)
    schema = options.schema
    label = "off, answers are text" if schema is None else "any object" if schema is True else "as the schema says"
    context.console.note(f"JSON: {label}")


@slash_command(
    "/tools",
    "[on|off|FILE.py]",
    "the tools that the model may call",
    lambda _, typed: ["on", "off", "demo", *(path for path in complete_path(typed) if path.endswith((".py", "/")))],
)
def _tools(context: ReplContext, argument: str) -> None:
    if argument in {"on", "off"}:
        context.agent.offers_tools = argument == "on"
    elif argument:
        context.toolbox.add_file(argument)
    rows = context.toolbox.listing()
    if not rows:
        raise UsageError("there are no tools.", hint="/tools FILE.py adds typed functions, /mcp COMMAND a server's.")
    context.console.table(["tool", "from", "does", "run"], rows, prose="does")
    if not context.agent.schemas:
        context.console.note("they are not offered to the model: /tools on")


@slash_command("/mcp", "[COMMAND|URL|NAME]", "MCP servers, or one more", lambda *_: list(read_chat_file().mcp_servers))
def _mcp(context: ReplContext, argument: str) -> None:
    if argument:
        with context.console.working(f"connecting to {argument}"):
            context.toolbox.add_server(argument)
    rows = context.toolbox.servers()
    if not rows:
        raise UsageError("no MCP server is connected.", hint="/mcp COMMAND, /mcp https://… or a name from chat.yaml")
    context.console.table(["server", "is", "tools"], rows, prose="is")
