"""Runs `hermes serve` once its settings are known: plans the models, serves, and shows the banner."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.models import Catalogue
from hermes_cli.chat.endpoint.address import OWN_KEY
from hermes_cli.commands.background import LOG_VARIABLE
from hermes_cli.commands.pull import default_model
from hermes_cli.console import Console, Voice
from hermes_cli.engine.protocol import Engine
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.probe import probe
from hermes_cli.hardware.selection import device_names, reserve_bytes, select_devices
from hermes_cli.models.attached import AttachedModel
from hermes_cli.models.owned import OwnedModel
from hermes_cli.models.planned import PlannedModel
from hermes_cli.paths import trim_log
from hermes_cli.planning.recommend import RecommendOptions
from hermes_cli.platforms import is_loopback
from hermes_cli.server.app import EVERYWHERE
from hermes_cli.server.run import ServerInfo, ServerParts, serve
from hermes_cli.server.running import recorded
from hermes_cli.server.served_models import AGENT_CONTEXT, ServedModel, model_request, plan_models
from hermes_cli.server.settings import ModelEntry, ServerSettings
from hermes_cli.tools.config import read_chat_file
from hermes_cli.units import memory_size

if TYPE_CHECKING:
    from hermes_cli.server.server_tools import ServerTools

EXAMPLE = '{"messages": [{"role": "user", "content": "What can you do?"}]}'


def serve_models(settings: ServerSettings, console: Console, *, verbose: bool) -> bool:
    """Serve until a signal comes; return whether running requests could finish.

    Raise HermesError if the port is in use, or a model is not here, does not fit or cannot be loaded.
    """
    waiting = ExitStack()  # holds the progress line until the server is ready
    show: Callable[[str], None] = _nothing

    def models() -> tuple[ServedModel, ...]:
        nonlocal show
        show = waiting.enter_context(console.working("looking how the models fit"))
        return planned_models(settings, console)

    def engine(served: ServedModel) -> Engine:
        def progress(part: float) -> None:
            show(f"loading {served.name}: {part:.0%}")

        return served.model.engine(verbose=verbose, progress=progress, note=console.note)

    def started(info: ServerInfo) -> None:
        nonlocal show
        show = _nothing
        waiting.close()
        _record(info, log_file, console, stack)
        _show_banner(info, console)
        if log_file:  # whoever waits for the banner sees its end
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    log_file = os.environ.pop(LOG_VARIABLE, None)
    log = console.log if settings.log_json or console.voice is Voice.HUMAN else _nothing
    if log_file:
        log = partial(_log_to, Path(log_file), console)
    with waiting, ExitStack() as stack:
        tools = _server_tools(settings, console, stack) if settings.mcp else None
        return serve(settings, ServerParts(models, engine, check_room, started, log, console.note, tools))


def _log_to(file: Path, console: Console, line: str) -> None:
    """Write a line of the log of a server in the background, whose standard error is that file."""
    console.log(line)
    trim_log(file)


def _record(info: ServerInfo, log_file: str | None, console: Console, stack: ExitStack) -> None:
    """Make the server known to `hermes ps` until `stack` is closed."""
    settings = info.settings
    try:
        stack.enter_context(
            recorded(
                _address(info),
                tuple(served.name for served in info.models),
                grace=settings.grace,
                key=settings.keys[0].secret if settings.own_key else None,
                has_keys=bool(settings.keys),
                log=log_file,
            )
        )
    except OSError as error:
        console.warn(f"hermes ps will not show this server: {error}")


def _server_tools(settings: ServerSettings, console: Console, stack: ExitStack) -> ServerTools:
    """Start the MCP servers whose tools are run here; `stack` ends them. Raise HermesError if one does not start."""
    from hermes_cli.server.server_tools import ServerTools
    from hermes_cli.tools.config import chosen_servers
    from hermes_cli.tools.toolbox import Consent, Toolbox

    toolbox = Toolbox(Consent(None, allow=settings.allow), console.warn)
    stack.callback(toolbox.close)
    toolbox.begin(chosen_servers(settings.mcp, [], read_chat_file()))
    with console.working("waiting for MCP servers"):
        toolbox.ready()
    allowed = [name for name, *_, consent in toolbox.listing() if consent == "allowed"]
    if not allowed:
        names = ", ".join(name for name, *_ in toolbox.listing())
        raise UsageError("no tool of the MCP servers may be run.", hint=f"allow some with --allow; there are: {names}")
    console.note(f"runs {', '.join(allowed)} for clients that ask: the model's name with +tools")
    return ServerTools(toolbox)


def planned_models(settings: ServerSettings, console: Console) -> tuple[ServedModel, ...]:
    """Return the models of the settings, else the best that is installed, as they fit this machine.

    Raise HermesError if one is not here, or does not fit.
    """
    catalogue, machine = load_catalogue(), probe(measure=False)
    entries = settings.models or (default_entry(settings, catalogue, machine, console),)

    def hosted(entry: ModelEntry) -> ServedModel:
        from hermes_cli.commands.hosted import hosted_model

        return hosted_model(entry, catalogue, console.warn, os.environ)

    return plan_models(msgspec.structs.replace(settings, models=entries), catalogue, machine, console.note, hosted)


async def check_room(served: ServedModel) -> HermesError | None:
    """Return the error if there is too little memory for the model now, as `Pool` asks."""
    return await asyncio.to_thread(served.model.memory_fault)


def _nothing(_: str) -> None:
    pass


def default_entry(settings: ServerSettings, catalogue: Catalogue, machine: Machine, console: Console) -> ModelEntry:
    """Return the default model of chat.yaml, else the best that is installed, or was fetched after a question.

    Raise HermesError if there is none.
    """
    options = RecommendOptions("agent", AGENT_CONTEXT) if settings.for_agent else RecommendOptions()
    entry = settings.entry("")
    if entry.engine_url:
        raise UsageError(
            "--engine-url needs the name of the model that runs there.",
            hint=f"for example: hermes serve hermes-3:8b --engine-url {entry.engine_url}",
        )
    if (name := read_chat_file().defaults.get("model")) and not settings.for_agent:
        return msgspec.structs.replace(entry, model=str(name))
    machine = select_devices(machine, device_names(entry.devices), reserve_bytes(entry.reserve))
    best = default_model("serve", model_request(entry), options, catalogue, machine, console)
    return msgspec.structs.replace(entry, model=best.name, kv_type=best.overrides.kv_type, yarn=best.yarn or entry.yarn)


def _address(info: ServerInfo) -> str:
    """Return the URL of the server for this machine, without a path."""
    host = info.settings.host
    host = "127.0.0.1" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{host}:{info.port}"


def network_address() -> str | None:
    """Return the IPv4 address by which other machines of the network reach this one; None if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: reaches nobody, and no packet is sent; it only chooses a route
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if is_loopback(address) else address


def _show_banner(info: ServerInfo, console: Console) -> None:
    """Show models, memory, address, and lines to paste into a client."""
    settings, address = info.settings, _address(info)
    key = settings.keys[0].secret if settings.own_key else None
    models = [_model_document(served) for served in info.models]
    console.document({"address": f"{address}/v1", "api_key": key, "models": models})
    if console.voice is Voice.QUIET:
        console.text("".join(f"{line}\n" for line in (f"{address}/v1", key) if line))
        return
    everywhere = " and every other address of this machine" if settings.host in EVERYWHERE else ""
    console.text(f"hermes serves {address}/v1{everywhere}\n")
    if everywhere and (other := network_address()):
        console.text(f"  from other machines: http://{other}:{info.port}/v1\n")
    console.text("\n")
    for number, served in enumerate(info.models):
        aliases = f", also called {', '.join(served.aliases)}" if served.aliases else ""
        console.text(f"  {served.name}{aliases}\n")
        slots = served.model.slots
        if served.model.pooling:
            console.text(f"    embeddings of texts of up to {served.model.context:,} tokens ({served.model.pooling})\n")
        else:
            console.text(f"    {served.model.context:,} tokens of context for each request, {slots} at once\n")
        when = "" if number == 0 else ", loaded when it is asked for"
        console.text(f"    {_memory(served)}{when}\n")
        if served.model.note:
            console.note(f"    {served.model.note}")
    if key:
        console.text(f"\n  key, made for this run: {key}\n")
        console.note("  your own: --api-key-file FILE")
    elif not settings.keys and not info.local:
        console.warn("  anybody who can reach this address may use it: --insecure")
    shown = key or ("YOUR-KEY" if settings.keys else "none")
    with_key = f" -H 'Authorization: Bearer {shown}'" if shown != "none" else ""
    variable = f"{OWN_KEY}=YOUR-KEY " if settings.keys and not key else ""
    console.text(f"\n  in a browser    {address}\n")
    console.text(f"  in a terminal   {variable}hermes chat --endpoint {address}\n")
    console.text(f"  with curl       curl {address}/v1/chat/completions{with_key} --json {shlex.quote(EXAMPLE)}\n")
    console.text("  other programs  hermes connect\n")
    console.text(f"\n  export OPENAI_BASE_URL={address}/v1 OPENAI_API_KEY={shown}\n")
    if settings.ollama:
        console.text(f"  export OLLAMA_HOST={address}{f' OLLAMA_API_KEY={shown}' if shown != 'none' else ''}\n")
    console.text("\n")
    console.note("Ctrl-C stops it.")


def _memory(served: ServedModel) -> str:
    """Describe the memory that a model takes of what was free, place by place."""
    if served.open_chat and isinstance(served.model, AttachedModel):
        return f"at {served.owner}, not on this machine"
    if isinstance(served.model, AttachedModel):
        return f"in the engine at {served.model.address}"
    if isinstance(served.model, OwnedModel):
        return f"in {served.model.program.engine}, which hermes starts and watches ({served.model.program.source})"
    places = [place for place in served.model.places if place.part.total]
    draft = served.model.options.draft if isinstance(served.model, PlannedModel) else None
    parts = [f"{memory_size(place.part.total)} of {memory_size(place.room)} free {place.where}" for place in places]
    return ", ".join(parts + ([f"{memory_size(draft.bytes)} for {draft.path.stem}, the draft model"] if draft else []))


def _model_document(served: ServedModel) -> dict[str, Any]:
    model = served.model
    document: dict[str, Any] = {
        "name": served.name,
        "aliases": list(served.aliases),
        "context_length": model.context,
        "slots": model.slots,
        "pooling": model.pooling,
    }
    if not isinstance(model, PlannedModel):
        return {**document, **model.details, "note": model.note or None}
    plan = model.fitted.plan
    return {
        **document,
        "kv_type": plan.settings.k_type,
        "gpu_layers": model.fitted.gpu_layers,
        "memory": [
            {"place": place.name, "bytes": {**asdict(place.part), "total": place.part.total}, "free_bytes": place.room}
            for place in model.places
        ],
        "draft": {"file": draft.path.name, "bytes": draft.bytes} if (draft := model.options.draft) else None,
        "note": model.note or None,
    }
