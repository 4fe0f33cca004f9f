"""The choice of another engine than this program's own, by flags or a file, and the model in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from hermes_cli.catalog.models import Catalogue
from hermes_cli.engine.upstream.programs import engine_named, find_program
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.models.owned import OwnedModel, owned_by_llama_server
from hermes_cli.models.resolve import EngineChoice, ModelRequest, given_flags

# Settings that only the embedded engine has; llama-server has some of them as arguments of its own.
_EMBEDDED = {"tensor_split": "--tensor-split", "devices": "--devices", "reserve": "--reserve", "pooling": "pooling"}


def own(request: ModelRequest, catalogue: Catalogue, platform: str = sys.platform) -> OwnedModel:
    """Return the model of a request in the engine that it chooses, not started yet.

    Raises:
        UsageError: there is no such engine, it has no such setting, or the system has no way to watch it.
        NotFoundError: the program, or the model, is not here.
        DoesNotFitError: there is too little memory.
    """
    if platform == "win32":  # no process groups, no sockets in files
        raise UsageError(
            "--engine: on Windows hermes starts no other engine.",
            hint="start it yourself and attach to it: --engine-url http://127.0.0.1:8080; or use WSL.",
        )
    choice = request.engine or EngineChoice("")
    engine = engine_named(choice.name)
    _check(request, choice, engine)
    program = find_program(engine, choice.command)
    if engine == "llama-server":
        return owned_by_llama_server(request, choice, program, catalogue)
    from hermes_cli.models.launched import launched  # noqa: PLC0415 - only for these engines

    return launched(request, choice, program, catalogue)


def _check(request: ModelRequest, choice: EngineChoice, engine: str) -> None:
    if given := given_flags(request, _EMBEDDED):
        raise UsageError(
            f"{' and '.join(given)}: hermes does not set this for {engine}.",
            hint="pass the engine's own arguments on with --engine-arg, or leave --engine out.",
        )
    if choice.rpc and engine != "llama-server":
        raise UsageError(f"--rpc: {engine} has nothing like it.", hint="see hermes plan NAME --engine vllm --nodes 2")


def default_engine() -> EngineChoice | None:
    """Return the engine that takes the place of this program's own if that is not installed; None if none has to."""
    if find_spec("llama_cpp") is not None:
        return None
    try:
        find_program("llama-server")
    except NotFoundError:
        return None
    return EngineChoice("llama-server")


def engine_choice(
    name: str | None, command: str | None, arguments: Sequence[str], rpc: str | None
) -> EngineChoice | None:
    """Return what the flags of a command choose; None for the engine of this program.

    Where llama-cpp-python is not installed, llama-server takes its place if it is here.

    Raise UsageError if a flag for engines that hermes starts is given without one, or the name is none.
    """
    if not name and not (command or arguments or rpc):
        return default_engine()
    if name in {None, "", "embedded", "llama.cpp"}:
        flags = {"--engine-command": command, "--engine-arg": arguments, "--rpc": rpc}
        if given := [flag for flag, value in flags.items() if value]:
            raise UsageError(
                f"{' and '.join(given)}: this is for an engine that hermes starts.",
                hint="name it: --engine llama-server",
            )
        return None
    hosts = tuple(host.strip() for host in (rpc or "").split(",") if host.strip())
    if wrong := next((host for host in hosts if not host.rpartition(":")[2].isdigit()), None):
        raise UsageError(
            f"--rpc {wrong} is no HOST:PORT.", hint="for example: --rpc 192.168.1.5:50052,192.168.1.6:50052"
        )
    return EngineChoice(engine_named(str(name)), command or "", tuple(arguments), hosts)
