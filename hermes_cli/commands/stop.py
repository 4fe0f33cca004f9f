"""`hermes stop`: end servers that run."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.server.running import RunningServer, running_servers

SPARE_SECONDS = 15  # beside the grace, for engines to end
NOTICED_SECONDS = 1  # in which a server takes note of the first signal; two at the same time are one


def running_names(incomplete: str) -> list[tuple[str, str]]:  # noqa: ARG001 - Typer passes it by this name
    """Return the ports of servers that run, with their models, for completion."""
    with suppress(OSError):
        return [(str(server.port), ", ".join(server.models)) for server in running_servers()]
    return []


@with_console
def command(
    console: Console,
    names: Annotated[
        list[str] | None,
        argument(
            "[SERVER]...",
            "Port, address, process number or model, as `hermes ps` shows them. None: the only one that runs.",
            running_names,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All servers of this user.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do not wait for running requests.")] = False,
) -> None:
    """Stop servers of this user. Running requests may finish, as long as the server's --grace lasts."""
    if names and every:
        raise UsageError("--all and names cannot be used together.", hint="leave one of them out.")
    servers = running_servers()
    chosen = servers if every or not names else [_named(name, servers) for name in names]
    if not names and not every and len(servers) > 1:
        raise _several(servers)
    for server in {server.pid: server for server in chosen}.values():
        _stop(server, console, force=force)
        console.note(f"stopped {server.address} ({', '.join(server.models)})")
    if not chosen:
        console.note("no server is running")
    console.document({"stopped": [{"address": f"{server.address}/v1", "pid": server.pid} for server in chosen]})


def _named(name: str, servers: list[RunningServer]) -> RunningServer:
    """Return the server with a name."""
    address = name.rstrip("/").removesuffix("/v1")
    matching = [server for server in servers if address in {server.address, str(server.port), str(server.pid)}]
    matching = matching or [server for server in servers if name in server.models]
    if not matching:
        listed = f"there are: {names_of(servers)}" if servers else "none runs."
        raise NotFoundError(f"no server of yours is called {name}.", hint=f"see them with hermes ps; {listed}")
    if len(matching) > 1:
        raise _several(matching)
    return matching[0]


def _several(servers: list[RunningServer]) -> UsageError:
    return UsageError(
        f"{len(servers)} servers are running: {names_of(servers)}.",
        hint=f"say which by its port: hermes stop {servers[0].port}; or hermes stop --all",
    )


def names_of(servers: list[RunningServer]) -> str:
    """Return servers as an error lists them: `8080 (demo), 8081 (hermes-3:8b)`."""
    return ", ".join(f"{server.port} ({', '.join(server.models)})" for server in servers)


def _stop(server: RunningServer, console: Console, *, force: bool) -> None:
    import psutil

    try:
        process = server.process
        if not server.listens():
            raise HermesError(
                f"process {server.pid} does not listen at {server.address}: it is another program, or ends already.",
                hint=f"see what it is: ps {server.pid}; if it is a server, end it: kill {server.pid}",
            )
        process.terminate()
        if force:
            with suppress(psutil.TimeoutExpired):
                process.wait(NOTICED_SECONDS)
            process.terminate()  # the second signal ends it at once
        with console.working(f"stopping {server.address}; requests may finish within {server.grace:g} seconds"):
            process.wait(server.grace + SPARE_SECONDS)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise HermesError(
            f"process {server.pid} may not be stopped by you.", hint="it runs with other rights: sudo"
        ) from None
    except psutil.TimeoutExpired:
        raise HermesError(
            f"the server at {server.address} still runs.", hint=f"end it at once: hermes stop {server.port} --force"
        ) from None
