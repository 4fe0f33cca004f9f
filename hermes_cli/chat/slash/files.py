"""Slash commands about files: attachments, sessions and export."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.chat.slash.command import complete_path, slash_command
from hermes_cli.errors import HermesError, NotFoundError, UsageError

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


MAX_BYTES = 16 << 20  # more than any context holds


@dataclass(frozen=True)
class Attachment:
    """A file's name and its text."""

    name: str
    text: str


def read_attachment(path_text: str) -> Attachment:
    """Read a text file; raise NotFoundError or UsageError if there is none that fits any context."""
    try:
        path = Path(path_text).expanduser()
        if not path.is_file():
            problem = "it is a folder" if path.is_dir() else "there is no such file"
            raise NotFoundError(f"{path_text}: {problem}.", hint="give the path of a text file.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(
                f"{path_text} has {size:,} bytes, which is too much for any context.", hint="give a part of it."
            )
        text = path.read_bytes().decode("utf-8")
        if "\0" in text:
            raise UsageError(f"{path_text} is not text (it has NUL bytes).", hint="give a text file, not a binary one.")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path_text} is not text (byte {error.start:,} is not UTF-8).", hint="give a text file, not a binary one."
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotFoundError(f"{path_text} cannot be read: {reason}.", hint="check its name and permissions.") from None
    return Attachment(path.name, text)


def text_or_file(typed: str) -> str:
    """Return a text as it was typed, or that of the file which it names as `@path`; errors as of `read_attachment`."""
    is_path = typed.startswith("@") and len(typed) > 1 and "\n" not in typed
    return read_attachment(typed[1:]).text.strip() if is_path else typed


def unread_files(*texts: str) -> list[str]:
    """Return the files that texts name as `@path`, as other programs attach them; we send these words as they stand.

    To attach them by themselves would let a text that was pasted read any file.
    """
    names = [word[1:].rstrip(".,;:?!)") for text in texts for word in text.split() if word.startswith("@")]
    return [name for name in dict.fromkeys(names) if name and os.path.isfile(os.path.expanduser(name))]  # noqa: PTH111, PTH113 - any text


def with_attachments(text: str, attachments: Sequence[Attachment]) -> str:
    """Return a message below its files, each between fences that are longer than any in it."""
    parts = []
    for file in attachments:
        fence = "```"
        while fence in file.text:
            fence += "`"
        parts.append(f"{file.name}:\n{fence}\n{file.text.rstrip()}\n{fence}")
    return "\n\n".join([*parts, text] if text else parts)
