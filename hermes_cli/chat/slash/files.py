"""Commands about files: what goes with a message, and where the conversation is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.chat.attachments import read_file
from hermes_cli.chat.slash.command import SlashCommand, nothing_more
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.repl_context import ReplContext


def _file(scene: ReplContext, rest: str) -> None:
    if not rest:
        for one in scene.attached:
            scene.show(one.name)
        scene.console.note("/file PATH adds a text file to your next message, /file none leaves all of them out")
        return
    if rest == "none":
        scene.attached.clear()
        return
    file = read_file(rest)
    scene.attached.append(file)
    scene.console.note(f"{file.name}, {len(file.text):,} characters, goes with your next message")


def _save(scene: ReplContext, rest: str) -> None:
    name = scene.records.save(rest or None, scene.conversation, scene.partner.name)
    scene.console.note(f"saved as {name}; hermes chat --resume {name} goes on")


def _load(scene: ReplContext, rest: str) -> None:
    if not rest:
        raise UsageError("/load needs the name of a session.", hint="/list shows them.")
    conversation = scene.records.load(rest)
    scene.talk.conversation = conversation
    scene.view.history(conversation)
    scene.console.note(f"{scene.records.name}, {len(conversation.said):,} messages")


def _list(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/list")
    rows = [[one.name, one.title, f"{one.messages:,}", one.model] for one in scene.records.listed()]
    if not rows:
        raise HermesError("no session is saved yet.", hint="this one is, with its first message.")
    scene.console.table(["name", "begins with", "messages", "model"], rows, right=["messages"])


def _export(scene: ReplContext, rest: str) -> None:
    from hermes_cli.chat.sessions.export import as_json, as_markdown  # noqa: PLC0415 - few conversations are exported

    form, _, where = rest.partition(" ")
    if form not in {"md", "json"}:
        raise UsageError("/export needs a format: md or json.", hint="/export md conversation.md")
    text = (as_markdown if form == "md" else as_json)(scene.conversation, scene.partner.name)
    if not where.strip():
        scene.show(text.rstrip("\n"))
        return
    path = Path(where.strip()).expanduser()
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already.", hint="choose another name; nothing is overwritten.") from None
    except OSError as error:
        raise HermesError(f"{path} cannot be written: {error.strerror}.", hint="choose another place.") from None
    scene.console.note(f"written to {path}")


COMMANDS = (
    SlashCommand("/file", "[PATH|none]", "add a text file to your next message", _file),
    SlashCommand("/save", "[NAME]", "save this conversation under a name", _save),
    SlashCommand("/load", "NAME", "go on with a saved conversation", _load),
    SlashCommand("/list", "", "saved conversations", _list),
    SlashCommand("/export", "md|json [FILE]", "write this conversation to a file, or show it", _export),
)
