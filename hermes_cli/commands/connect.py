"""`hermes connect`: the settings that a client needs for a server that runs."""

from __future__ import annotations

import difflib
import shlex
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hermes_cli import paths
from hermes_cli.chat.endpoint.address import OWN_KEY
from hermes_cli.commands.clients import CLIENTS, NO_KEY, Client, Connection
from hermes_cli.commands.options import YesOption, argument, confirm_or_exit, with_console
from hermes_cli.console import Console
from hermes_cli.errors import HermesError, NetworkError, NotFoundError, UsageError

MODELS = "/v1/models"
TITLES = ("NAME", "CLIENT", "SETTINGS")
IN_EDITORS = ("vscode", "vs-code", "code", "visual-studio-code", "jetbrains", "intellij", "pycharm")
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


def _client_names(incomplete: str) -> list[tuple[str, str]]:  # noqa: ARG001 - Typer passes it by this name
    return [(name, client.title) for name, client in CLIENTS.items()]


@with_console
def command(
    console: Console,
    name: Annotated[
        str | None, argument("[CLIENT]", "The client to connect. Without one: list them.", _client_names)
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the server. Default: the one that runs here.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model of the server. Default: its first.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar=OWN_KEY, metavar="KEY", help="API key, if the server wants one."),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Print the settings and write nothing.")] = False,
    yes: YesOption = False,
) -> None:
    """Write the settings that a client needs for a running hermes serve.

    Shows the change first and asks. A file that was there is kept beside the new one, with the time in its name.

    hermes connect opencode

    hermes connect codex --url http://192.168.1.5:8080 --print
    """
    if name is None:
        _list(console)
        return
    client = _client_named(name)
    connection = _connection(url, key, model)
    file = client.file() if client.file else None
    start = client.start.format(file=shlex.quote(str(file)))
    document: dict[str, Any] = {"client": name, "file": str(file) if file else None, "start": start, "written": False}
    if file is None or print_only:
        console.text(client.text(connection))
        if file:
            console.note(f"it belongs in {file}")
        console.document({**document, "text": client.text(connection)})
    else:
        backup = _write(client, connection, file, console, yes=yes)
        console.document({**document, "written": True, "backup": str(backup) if backup else None})
    console.note(f"then: {start}")
    if client.note:
        console.note(client.note)
    if connection.context < client.needs:
        console.warn(
            f"{client.title} needs {client.needs:,} tokens of context or more, and this server has "
            f"{connection.context:,}: hermes serve NAME --for-agent"
        )


def _list(console: Console) -> None:
    files = {name: client.file() if client.file else None for name, client in CLIENTS.items()}
    home = str(Path("~").expanduser())
    rows = [
        (name, client.title, str(files[name] or "printed").replace(home, "~", 1)) for name, client in CLIENTS.items()
    ]
    console.table(TITLES, rows)
    console.note("connect one with the server that runs: hermes connect NAME")
    listed = [{"name": name, "file": str(file) if file else None} for name, file in files.items()]
    console.document({"clients": listed})


def _client_named(name: str) -> Client:
    normal = name.lower().replace("_", "-").replace(" ", "-")
    if normal in CLIENTS:
        return CLIENTS[normal]
    if normal in IN_EDITORS:
        raise NotFoundError(
            f"hermes does not know {name} itself.",
            hint="if you use Continue there: hermes connect continue; for any other extension: hermes connect env",
        )
    if normal == "ollama":
        raise NotFoundError(
            "hermes needs no Ollama: it answers Ollama's clients itself.",
            hint="serve like Ollama: hermes serve NAME --ollama",
        )
    near = difflib.get_close_matches(normal, CLIENTS, 1) or [known for known in CLIENTS if known.startswith(normal)]
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(CLIENTS)}; for any other: hermes connect env"
    raise NotFoundError(f"hermes does not know the client {name}.", hint=hint)


def _connection(url: str | None, key: str | None, model: str | None) -> Connection:
    """Return what is to be known of the server, by asking it."""
    from hermes_cli.server.running import listed_models, running_servers, status_of

    if url is None:
        servers = running_servers()
        if not servers:
            raise NotFoundError(
                "no server is running.",
                hint="start one: hermes serve NAME --background; or name one elsewhere: --url URL",
            )
        if len(servers) > 1:
            addresses = ", ".join(server.address for server in servers)
            raise UsageError(f"{len(servers)} servers are running.", hint=f"say which with --url: {addresses}")
        root, key = servers[0].address, key or servers[0].key
    else:
        root = _root(url)
    listed = listed_models(root, key)
    if listed is None:
        raise _no_models(root, key, status_of(root, MODELS, key))
    models = {known: entry for entry in listed for known in (entry.id, *entry.aliases)}
    chosen = models.get(model or listed[0].id)
    if chosen is None:
        raise NotFoundError(f"{root} has no model {model}.", hint=f"there are: {', '.join(models)}")
    capabilities = chosen.capabilities if isinstance(chosen.capabilities, dict) else {}
    tools = capabilities.get("tools") is not False
    return Connection(root, model or chosen.id, chosen.context_length or 0, key or NO_KEY, tools=tools)


def _no_models(root: str, key: str | None, status: int | None) -> HermesError:
    """Return the error for a server that lists no models, by the status of its answer."""
    if status is None:
        return NetworkError(
            f"{root} does not answer.",
            hint="check the address, and that the server is running; those that run here: hermes ps",
        )
    if status in {401, 403}:
        if key:
            return NetworkError(f"{root} does not take this key.", hint="check the key that --key gives.")
        return UsageError(f"{root} wants a key.", hint="give it: --key KEY")
    return NetworkError(
        f"{root} answers, but lists no models (status {status} at {MODELS}).",
        hint="check the address: it has to be that of a server with OpenAI's API.",
    )


def _root(url: str) -> str:
    """Return an address as it was typed, without `/v1`; UsageError if it is none."""
    from hermes_cli.chat.endpoint.address import read_address

    full = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        return read_address(full, {}).root
    except UsageError as error:
        shown = error.message.replace("--endpoint", "--url")
        raise UsageError(shown, hint=error.hint.replace("--endpoint", "--url")) from None


def _write(client: Client, connection: Connection, file: Path, console: Console, *, yes: bool) -> Path | None:
    """Show the change of a file, ask, and make it; return the copy of what was there."""
    if file.is_fifo() or file.is_char_device():
        raise UsageError(f"{file} is a pipe or a device.", hint="move it away.")
    try:
        before = file.read_text(encoding="utf-8-sig") if file.exists() else ""
        after = client.edited(before, connection)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not text.", hint="move it away.") from None
    except UsageError as error:
        raise UsageError(f"{file}: {error.message}", hint=error.hint) from None
    if after == before:
        console.text(f"{file} is as it should be\n")
        return None
    old, new = (text.splitlines() for text in (before, after))
    lines = list(difflib.unified_diff(old, new, str(file), str(file), lineterm=""))
    if connection.key != NO_KEY:
        lines = [line.replace(connection.key, "KEY") for line in lines]
    console.styled((line, _COLORS.get(line[:1], "") if at > 1 else "bold") for at, line in enumerate(lines))
    if not yes:
        confirm_or_exit(
            console,
            f"Write {file}?",
            unasked="nothing was written: there is no terminal to ask on.",
            hint="--yes writes it, --print prints it.",
            refused="nothing was written",
            default=True,
        )
    try:
        backup = _replace(file, before, after, private=connection.key in after)
    except OSError as error:
        raise HermesError(f"{file} cannot be written: {error.strerror}.", hint="--print shows the settings.") from None
    console.note(f"written{f'; what was there is in {backup}' if backup else ''}")
    return backup


def _replace(file: Path, before: str, after: str, *, private: bool) -> Path | None:
    """Write a file that had the text `before`; return the copy of it. `private` files are for their owner alone."""
    backup = None
    file.parent.mkdir(parents=True, exist_ok=True)
    if before:
        backup = file.with_name(f"{file.name}.{time.strftime('%Y-%m-%d-%H%M%S')}.bak")
        shutil.copy2(file, backup)
    paths.write_settings(file, after, private=private)
    return backup
