"""`hermes ps`: the servers that run, and the models that they have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from hermes_cli.chat.endpoint.address import OWN_KEY
from hermes_cli.commands.options import with_console
from hermes_cli.console import Console, Voice
from hermes_cli.units import counted, memory_size

if TYPE_CHECKING:
    from hermes_cli.server.running import RunningServer

TITLES = ("MODEL", "STATE", "CONTEXT", "REQUESTS", "ADDRESS", "MEMORY", "UP", "PID")
_HOUR, _DAY = 3600, 86_400


@with_console
def command(
    console: Console,
    key: Annotated[
        str | None,
        typer.Option(envvar=OWN_KEY, help="API key of the servers, to see what their models do.", metavar="KEY"),
    ] = None,
) -> None:
    """List the servers of this user that run, with their models, memory, and the requests at work.

    MEMORY is the RAM of a server and its engines; models on a GPU take more there. A server that wants a key of yours
    tells the state of its models only with it.
    """
    from hermes_cli.server.running import running_servers

    servers = running_servers()
    documents = [server_document(server, key) for server in servers]
    if console.voice is Voice.QUIET:
        console.text("".join(f"{server.address}/v1\n" for server in servers))
    elif servers:
        console.table(TITLES, [row for document in documents for row in _rows(document)], right=("CONTEXT", "REQUESTS"))
        console.note("stop one: hermes stop PORT; talk with one: hermes chat --endpoint ADDRESS")
        for server in servers:
            if server.log:
                console.note(f"the log of {server.address} is {server.log}")
    else:
        console.note(
            "no server is running; start one: hermes serve NAME, or in the background: hermes serve NAME --background"
        )
    console.document({"servers": documents})


def server_document(server: RunningServer, key: str | None = None) -> dict[str, Any]:
    """Return what is known of a server: its record, its memory, and its models if it tells them."""
    from hermes_cli.server.running import ListedModel, listed_models

    told = {model.id: model for model in listed_models(server.address, key or server.key) or ()}
    models = []
    for name in dict.fromkeys([*server.models, *told]):
        model = told.get(name) or ListedModel(name)
        slots = server.get(f"/slots?model={quote(name)}", key) if model.state == "ready" else None
        requests = sum(slot["is_processing"] is True for slot in slots) if isinstance(slots, list) else None
        models.append(
            {"name": name, "state": model.state, "context_length": model.context_length, "requests": requests}
        )
    return {
        "address": f"{server.address}/v1",
        "pid": server.pid,
        "started": int(server.started),
        "memory_bytes": server.memory(),
        "needs_key": server.has_keys,
        "log": server.log,
        "models": models,
    }


def _rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    shared = (
        document["address"],
        memory_size(document["memory_bytes"]),
        uptime(time.time() - document["started"]),
        str(document["pid"]),
    )
    return [
        (
            model["name"],
            model["state"] or ("needs a key" if document["needs_key"] else "does not answer"),
            f"{model['context_length']:,}" if model["context_length"] else "",
            "" if model["requests"] is None else str(model["requests"]),
            *shared,
        )
        for model in document["models"]
    ]


def uptime(seconds: float) -> str:
    """Return a time in its largest unit: `40 s`, `5 min`, `3 h`, `2 days`."""
    for size, unit in ((_DAY, "day"), (_HOUR, "h"), (60, "min")):
        if seconds >= size:
            return counted(int(seconds / size), unit) if unit == "day" else f"{int(seconds / size)} {unit}"
    return f"{max(int(seconds), 0)} s"
