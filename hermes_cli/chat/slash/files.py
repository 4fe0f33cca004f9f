"""Slash commands about files: attachments, sessions and export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.chat.attachments import read_attachment
from hermes_cli.chat.slash.command import complete_path, slash_command
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.repl import ReplContext


@slash_command(
    "/file", "[PATH|none]", "add a text file to your next message", lambda _, typed: ["none", *complete_path(typed)]
)
def _file(context: ReplContext, argument: str) -> None:
    if not argument:
        for file in context.attachments:
            context.print(file.name)
        context.console.note("/file PATH adds a text file to your next message, /file none leaves all of them out")
        return
    if argument == "none":
        context.attachments.clear()
        return
    file = read_attachment(argument)
    context.attachments.append(file)
    context.console.note(f"{file.name}, {len(file.text):,} characters, goes with your next message")


@slash_command("/save", "[NAME]", "save this conversation under a name")
def _save(context: ReplContext, argument: str) -> None:
    name = context.session.save(argument or None, context.conversation, context.backend.name)
    context.console.note(f"saved as {name}; hermes chat --resume {name} goes on")


@slash_command(
    "/load",
    "NAME",
    "go on with a saved conversation",
    lambda context, _: [session.name for session in context.session.sessions()],
)
def _load(context: ReplContext, argument: str) -> None:
    if not argument:
        raise UsageError("/load needs the name of a session.", hint="/list shows them.")
    conversation = context.session.load(argument)
    context.agent.conversation = conversation
    context.view.history(conversation)
    context.console.note(f"{context.session.name}, {len(conversation.entries):,} messages")


@slash_command("/list", "", "saved conversations")
def _list(context: ReplContext, _argument: str) -> None:
    sessions = context.session.sessions()
    if not sessions:
        raise HermesError("no session is saved yet.", hint="this one is, with its first message.")
    rows = [[session.name, session.title, f"{session.messages:,}", session.model] for session in sessions]
    context.console.table(
        ["name", "begins with", "messages", "model"], rows, right=["messages"], optional=["model"], prose="begins with"
    )


def _complete_export(_context: ReplContext, typed: str) -> list[str]:
    form, space, path = typed.partition(" ")
    return [f"{form} {file}" for file in complete_path(path)] if space else ["md", "json"]


@slash_command("/export", "md|json [FILE]", "write this conversation to a file, or show it", _complete_export)
def _export(context: ReplContext, argument: str) -> None:
    from hermes_cli.chat.sessions.export import as_json, as_markdown  # noqa: PLC0415 - few conversations are exported

    form, _, path_text = argument.partition(" ")
    path_text = path_text.strip()
    if form not in {"md", "json"}:
        raise UsageError("/export needs a format: md or json.", hint="/export md conversation.md")
    text = (as_markdown if form == "md" else as_json)(context.conversation, context.backend.name)
    if not path_text:
        context.print(text.rstrip("\n"))
        return
    try:
        path = Path(path_text).expanduser()
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path_text} already exists.", hint="choose another name.") from None
    except (OSError, RuntimeError, ValueError) as error:  # also no such user, or a name that cannot be
        reason = getattr(error, "strerror", None) or error
        raise HermesError(f"{path_text} cannot be written: {reason}.", hint="choose another place.") from None
    context.console.note(f"written to {path}")
