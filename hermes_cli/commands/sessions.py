"""`hermes sessions`: the conversations that `hermes chat` saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hermes_cli import paths
from hermes_cli.commands.completing import session_names
from hermes_cli.commands.options import (
    ListFirst,
    NoColorOption,
    QuietOption,
    YesOption,
    argument,
    confirm_removal,
    console_for,
    with_console,
)
from hermes_cli.console import Console
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.units import counted, gigabytes

if TYPE_CHECKING:
    from hermes_cli.chat.sessions.format import SavedSession


TITLES = ("NAME", "MESSAGES", "SIZE", "LAST USED", "MODEL", "TITLE")


app = typer.Typer(
    cls=ListFirst,
    rich_markup_mode=None,
    help="List, show, export and remove the conversations that were saved. Without a command: list them.",
)

NameArgument = Annotated[str, argument("NAME", "As `hermes sessions` shows it, or its beginning.", session_names)]


@app.command("list")
@with_console
def list_(console: Console) -> None:
    """List saved conversations, the newest first."""
    from hermes_cli.chat.sessions.export import iso_time, local_time
    from hermes_cli.chat.sessions.store import list_sessions

    folder = paths.chats_dir()
    saved = list_sessions(folder)
    total = sum(session.bytes for session in saved)
    rows = [
        (
            session.name,
            str(session.messages),
            gigabytes(session.bytes),
            local_time(session.modified),
            session.model,
            f"cannot be read: {session.problem}" if session.problem else session.title,
        )
        for session in saved
    ]
    if saved:
        console.table(TITLES, rows, right=("MESSAGES", "SIZE"), optional=("SIZE", "MODEL"), prose="TITLE")
        count = counted(len(saved), "session")
        console.note(f"{count}, {gigabytes(total)}, in {folder}; go on with one: hermes chat --resume NAME")
    else:
        console.note("no conversation is saved; begin one: hermes chat")
    console.document(
        {
            "sessions": [
                {
                    "name": session.name,
                    "title": session.title,
                    "model": session.model or None,
                    "messages": session.messages,
                    "modified": iso_time(session.modified),
                    "bytes": session.bytes,
                    "path": str(session.path),
                    "problem": session.problem,
                }
                for session in saved
            ],
            "folder": str(folder),
            "total_bytes": total,
        }
    )


@app.command()
@with_console
def show(console: Console, name: NameArgument) -> None:
    """Show the messages of a conversation, with reasoning, tool calls and their results."""
    from hermes_cli.chat.sessions.export import as_document, as_lines, title_of

    saved = _read(name, console)
    console.styled(as_lines(saved.conversation))
    document = as_document(saved.conversation, saved.model)
    console.document({"name": saved.name, "title": title_of(saved.conversation), **document})


@app.command()
@with_console
def rm(
    console: Console,
    names: Annotated[list[str] | None, argument("[NAME]...", "As `hermes sessions` shows them.", session_names)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: YesOption = False,
) -> None:
    """Remove saved conversations. One that a chat has open stays."""
    if bool(names) == everything:
        raise UsageError(
            "--all goes without names." if names else "there is no name.",
            hint="see what is saved: hermes sessions" if not names else "give names, or --all.",
        )

    from hermes_cli.chat.sessions.store import find_session, list_sessions, remove_sessions

    folder = paths.chats_dir()
    selected = list_sessions(folder)
    if not everything:
        selected = list(dict.fromkeys(find_session(folder, name) for name in names or []))
    for session in selected:
        messages = counted(session.messages, "message")
        console.note(f"{session.name}  {messages}  {gigabytes(session.bytes)}  {session.title}")
    if not selected:
        console.note("there is nothing to remove")
    elif not yes:
        confirm_removal(counted(len(selected), "session"), console)
    removed = remove_sessions(session.path for session in selected)
    if removed.names:
        console.note(f"removed {counted(len(removed.names), 'session')}; {gigabytes(removed.bytes)} freed")
    console.document({"removed": list(removed.names), "freed_bytes": removed.bytes, "in_use": list(removed.kept)})
    if removed.kept:
        kept = f"{', '.join(removed.kept)} {'is' if len(removed.kept) == 1 else 'are'}"
        raise HermesError(f"{kept} open in a chat, and not removed.", hint="leave that chat, then remove it.")


@app.command()
def export(
    name: NameArgument,
    form: Annotated[
        Literal["md", "json"] | None,
        typer.Option("--format", help="Markdown, or JSON in OpenAI's shape. Default: as FILE ends, else md."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a FILE that exists.")] = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Write a conversation for people (Markdown) or for other programs (JSON)."""
    console = console_for(json=False, quiet=quiet, no_color=no_color)

    from hermes_cli.chat.sessions.export import as_json, as_markdown

    saved = _read(name, console)
    form = form or ("json" if output and output.suffix.lower() == ".json" else "md")
    text = (as_json if form == "json" else as_markdown)(saved.conversation, saved.model)
    if output is None or str(output) == "-":
        console.text(text)
    else:
        path = output.expanduser()
        try:
            with path.open("w" if force else "x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            hint = "choose another name, or write over it: --force"
            raise UsageError(f"{path} already exists.", hint=hint) from None
        except OSError as error:
            raise HermesError(f"{path} cannot be written: {error.strerror}.", hint="choose another place.") from None
        console.note(f"written to {output}")


def _read(name: str, console: Console) -> SavedSession:
    """Return the saved conversation of this name; warn if a part cannot be read."""
    from hermes_cli.chat.sessions.store import find_session, read_session

    saved = read_session(find_session(paths.chats_dir(), name).path)
    if saved.damaged_line:
        count = counted(len(saved.conversation.entries), "message")
        console.warn(f"{saved.name} is damaged in line {saved.damaged_line:,}: {count} before that could be read.")
    return saved
