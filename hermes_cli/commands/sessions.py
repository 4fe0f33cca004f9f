"""`hermes sessions`: the conversations that `hermes chat` saved."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - Typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from hermes_cli import paths
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.commands.rm import confirm_removal
from hermes_cli.console import CONTROL
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.units import gigabytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hermes_cli.chat.sessions.store import RemovedSessions, SavedSession, SessionInfo
    from hermes_cli.console import Console


class _ListFirst(TyperGroup):
    """Run `list` where `hermes sessions` is typed without a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - of the click that Typer carries
        options_only = all(argument.startswith("-") for argument in args)
        if options_only and not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListFirst,
    rich_markup_mode=None,
    help="List, show, export and remove the conversations that were saved. Without a command: list them.",
)

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="As `hermes sessions` shows it, or its beginning.", show_default=False),
]


@app.command("list")
def list_(json: JsonOption = False, quiet: QuietOption = False, no_color: NoColorOption = False) -> None:
    """List saved conversations, the newest first."""
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.chat.sessions.store import list_sessions

    folder = paths.chats_dir()
    saved = list_sessions(folder)
    total = sum(session.bytes for session in saved)
    if saved:
        console.table(
            ("NAME", "MESSAGES", "SIZE", "LAST USED", "MODEL", "TITLE"), _rows(saved), right=("MESSAGES", "SIZE")
        )
        console.note(
            f"{_count(len(saved))}, {gigabytes(total)}, in {folder}; go on with one: hermes chat --resume NAME"
        )
    else:
        console.note("no conversation is saved; begin one: hermes chat")
    console.document(
        {
            "sessions": [_entry(session) for session in saved],
            "folder": str(folder),
            "total_bytes": total,
        }
    )


@app.command()
def show(
    name: NameArgument, json: JsonOption = False, quiet: QuietOption = False, no_color: NoColorOption = False
) -> None:
    """Show the messages of a conversation, with reasoning, tool calls and their results."""
    console = console_for(json=json, quiet=quiet, no_color=no_color)

    from hermes_cli.chat.sessions.export import as_document, as_lines, title_of

    saved = _read(name, console)
    _print(as_lines(saved.conversation), console)
    document = as_document(saved.conversation, saved.model)
    console.document({"name": saved.name, "title": title_of(saved.conversation), **document})


@app.command()
def rm(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="As `hermes sessions` shows them.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """Remove saved conversations. One that a chat has open stays."""
    console = console_for(json=json, quiet=quiet, no_color=no_color)
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
        console.note(f"{session.name}  {_messages(session.messages)}  {gigabytes(session.bytes)}  {session.title}")
    if not selected:
        console.note("there is nothing to remove")
    elif not yes:
        confirm_removal(_count(len(selected)), console)
    _report(remove_sessions(session.path for session in selected), console)


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
        _write(output.expanduser(), text, force=force)
        console.note(f"written to {output}")


def _read(name: str, console: Console) -> SavedSession:
    """Return the saved conversation of this name.

    Raises:
        HermesError: there is none, or it cannot be read.
    """
    from hermes_cli.chat.sessions.store import find_session, read_session

    saved = read_session(find_session(paths.chats_dir(), name).path)
    if saved.damaged_line:
        count = len(saved.conversation.entries)
        console.warn(
            f"{saved.name} is damaged in line {saved.damaged_line:,}: {_messages(count)} before that could be read."
        )
    return saved


def _rows(saved: Sequence[SessionInfo]) -> list[tuple[str, ...]]:
    from hermes_cli.chat.sessions.export import local_time

    return [
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


def _entry(session: SessionInfo) -> dict[str, Any]:
    from hermes_cli.chat.sessions.export import iso_time

    return {
        "name": session.name,
        "title": session.title,
        "model": session.model or None,
        "messages": session.messages,
        "modified": iso_time(session.modified),
        "bytes": session.bytes,
        "path": str(session.path),
        "problem": session.problem,
    }


def _print(lines: Iterable[tuple[str, str]], console: Console) -> None:
    """Write lines to standard output, with their styles on a terminal only."""
    if not console.out.isatty():
        console.text("".join(f"{line}\n" for line, _ in lines))
        return
    from rich.console import Console as RichConsole
    from rich.text import Text

    off = console.color is False or bool(os.environ.get("NO_COLOR"))
    rich = RichConsole(file=console.out, no_color=off, highlight=False, soft_wrap=True)
    for line, style in lines:
        rich.print(Text(line.translate(CONTROL), style))


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a file.

    Raises:
        HermesError: it exists already, or cannot be written.
    """
    try:
        with path.open("w" if force else "x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already.", hint="choose another name, or write over it: --force") from None
    except OSError as error:
        raise HermesError(f"{path} cannot be written: {error.strerror}.", hint="choose another place.") from None


def _report(removed: RemovedSessions, console: Console) -> None:
    """Show the sessions that were removed.

    Raises:
        HermesError: some were not.
    """
    if removed.names:
        console.note(f"removed {_count(len(removed.names))}; {gigabytes(removed.bytes)} freed")
    console.document({"removed": list(removed.names), "freed_bytes": removed.bytes, "in_use": list(removed.kept)})
    if removed.kept:
        sessions = f"{removed.kept[0]} is" if len(removed.kept) == 1 else f"{', '.join(removed.kept)} are"
        raise HermesError(f"{sessions} open in a chat, and not removed.", hint="leave that chat, then remove it.")


def _count(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions:,} sessions"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"
