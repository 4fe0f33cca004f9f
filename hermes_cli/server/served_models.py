"""The models that a server offers: entries of its settings become planned models with the names that clients use."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli import paths
from hermes_cli.catalog.file_names import quantization_in_file_name
from hermes_cli.catalog.models import Catalogue
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.errors import DoesNotFitError, HermesError, UsageError
from hermes_cli.generation import NO_GRAMMARS, THINK_END, ChatModel
from hermes_cli.gguf.header import read_header
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.selection import device_names, reserve_bytes
from hermes_cli.models.attached import AttachedModel, attach
from hermes_cli.models.engine_choice import engine_choice, own
from hermes_cli.models.planned import fit_all, planned
from hermes_cli.models.resolve import DRAFT_OFF, ModelRequest, resolve
from hermes_cli.models.servable import ServableModel
from hermes_cli.planning.load_plan import LoadOverrides
from hermes_cli.planning.recommend import RecommendOptions, recommendations, smallest_variant
from hermes_cli.server.settings import SLOTS, Key, ModelEntry, ServerSettings
from hermes_cli.store.library import installed
from hermes_cli.units import memory_size

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import Engine

HASH_ROUNDS = 200_000  # 0.1 s for each key, with --prefix-cache only
AGENT_CONTEXT = 65_536  # tokens; Hermes Agent refuses less than 64,000 (NEEDS["agent"]), and this is a common length


@dataclass(frozen=True)
class ServedModel:
    """A model that clients can ask for."""

    name: str  # its id in the API
    aliases: tuple[str, ...]  # other names that clients may use
    model: ServableModel  # its file, plan and engine options; they stay the same as long as the server runs
    think: bool | None = None  # reason where a request does not say
    strict_think: bool = False  # refuse requests for reasoning if it has none
    think_end: str = THINK_END  # what ends reasoning whose budget is used up
    idle_seconds: float | None = None  # time in memory without a request; None for ever
    pin: bool = False  # it stays there, whatever other models and requests want
    size: int = 0  # bytes of its first file
    quantization: str | None = None  # from its name or its header, if they have it
    created: int = 0  # when its file was written, in seconds since 1970
    owner: str = "hermes-llm"  # `owned_by` in the API; the host of a service for a model that is there
    open_chat: Callable[[Engine], Awaitable[ChatModel]] | None = None  # None prompts it here, as `ChatModel.open` does


def model_request(entry: ModelEntry, least_context: int = 0) -> ModelRequest:
    """Return the request for a model of the settings, with a context of at least so many tokens."""
    if entry.context is not None and entry.context < least_context:
        raise UsageError(
            f"--context {entry.context:,} is less than the {least_context:,} tokens that --for-agent insists on.",
            hint="leave one of them out.",
        )
    choice = engine_choice(entry.engine, entry.engine_command, entry.engine_args or (), entry.rpc)
    plans_slots = choice is not None and choice.name != "llama-server"  # vLLM and SGLang take as many as fit
    overrides = LoadOverrides(
        entry.context,
        entry.gpu_layers,
        entry.kv_type,
        entry.threads,
        entry.slots or (1 if plans_slots else SLOTS),
        force=bool(entry.force),
        longest=True,
        least=least_context,
        tensor_split=entry.tensor_split or (),
        micro_batch=entry.batch,
        devices=device_names(entry.devices),
        reserve=reserve_bytes(entry.reserve),
        pooling=entry.pooling,
    )
    draft, yarn = entry.draft or DRAFT_OFF, bool(entry.yarn)
    if entry.engine and entry.engine_url:
        raise UsageError(
            "--engine and --engine-url cannot be used together.",
            hint="--engine starts an engine; --engine-url is for one that you run yourself.",
        )
    return ModelRequest(
        entry.model,
        overrides,
        yarn,
        draft,
        template=entry.template,
        embeddings=not choice,
        engine_url=entry.engine_url,
        engine=None if entry.engine_url else choice,
        tokenizer=Path(entry.tokenizer) if entry.tokenizer else None,
    )


def plan_models(
    settings: ServerSettings,
    catalogue: Catalogue,
    machine: Machine,
    note: Callable[[str], None],
    hosted: Callable[[ModelEntry], ServedModel] | None = None,
) -> tuple[ServedModel, ...]:
    """Plan the models of the settings, of which there is one at least; `note` is told what was given up.

    `hosted` returns the model of an entry with `upstream`.

    Raises:
        NotFoundError: one is not on this disk.
        DoesNotFitError: one does not fit, even alone.
        UsageError: settings of one make no sense, or two have the same name.
        HermesError: a file cannot be read, or llama.cpp refuses it.
    """
    least = AGENT_CONTEXT if settings.for_agent else 0
    requests = [model_request(entry, 0 if number else least) for number, entry in enumerate(settings.models)]
    models = [
        resolve(request, catalogue)
        for entry, request in zip(settings.models, requests, strict=True)
        if not (request.engine_url or request.engine or entry.upstream)
    ]
    try:
        plans = fit_all(models, machine, note) if models else []
    except (DoesNotFitError, UsageError) as error:
        if least and not (isinstance(error, DoesNotFitError) and error.alternative):
            raise _no_agent(error, catalogue, machine) from None
        raise
    options = _engine_options(settings)
    local = iter(zip(models, plans, strict=True))

    def served(entry: ModelEntry, request: ModelRequest) -> ServedModel:
        if entry.upstream and hosted:
            return hosted(entry)
        if request.engine_url:
            return _attached(entry, request, catalogue, note)
        if request.engine:
            return _owned(entry, request, catalogue)
        model = planned(*next(local), catalogue, note, options)
        return _from_file(entry, model, model.path)

    served_models = tuple(map(served, settings.models, requests))
    attached = Counter(request.engine_url for request in requests if request.engine_url)
    if several := [url for url, count in attached.items() if count > 1]:
        raise UsageError(
            f"{several[0]} would have two models, and an engine has one.",
            hint="give each its own `engine_url` in the file: models: [{model: …, engine_url: …}]",
        )
    _check_names(served_models)
    return served_models


def _check_names(models: Sequence[ServedModel]) -> None:
    """Raise UsageError if two models have the same name."""
    owners: dict[str, ServedModel] = {}
    for model in models:
        for name in {model.name, *model.aliases}:
            owner = owners.setdefault(name.casefold(), model)
            if owner is not model:
                raise UsageError(
                    f"{name} would stand for both {owner.model.file_name} and {model.model.file_name}.",
                    hint="give one of them another name in the file: models: [{model: …, name: …}]",
                )


def _engine_options(settings: ServerSettings) -> EngineOptions:
    """Return the options of engines of this program."""
    options = EngineOptions(constraints=True, max_queue=settings.max_queue)
    if prefix_bytes := _prefix_bytes(settings.prefix_cache):
        keys = {key.name: _stands_for(key) for key in settings.keys}
        folder = paths.cache_dir() / "prefixes"
        options = replace(options, prefixes=folder, prefix_bytes=prefix_bytes, prefix_owners=keys)
    return options


def _stands_for(key: Key) -> str:
    """Return a hash of a key that nobody finds the key by, even if somebody thought it up."""
    return hashlib.pbkdf2_hmac("sha256", key.secret.encode(), b"hermes prefix cache", HASH_ROUNDS).hex()


def _prefix_bytes(text: str | None) -> int:
    if text is None or text.strip() == "0":
        return 0
    from hermes_cli.hardware.simulate import parse_size  # noqa: PLC0415 - with the table of GPUs, 10 ms

    return parse_size(text, "--prefix-cache")


def _attached(
    entry: ModelEntry, request: ModelRequest, catalogue: Catalogue, note: Callable[[str], None]
) -> ServedModel:
    """Return a model in an engine that somebody else runs, which is asked for what it has."""
    if entry.slots:
        raise UsageError(
            "--slots: with --engine-url this is for whoever starts the engine.", hint="leave it out: the engine tells."
        )

    async def look() -> AttachedModel:
        model, engine = await attach(request, catalogue)
        await engine.close()
        return model

    model = asyncio.run(look())
    if model.context < request.overrides.least:
        raise DoesNotFitError(
            f"the engine at {model.address} has {model.context:,} tokens of context, and --for-agent insists on "
            f"{request.overrides.least:,}.",
            hint="start the engine with more, or leave --for-agent out.",
        )
    if not model.info.grammars:
        note(NO_GRAMMARS)
    return served_model(entry, model, model.info.weight_bytes, int(time.time()))


def _owned(entry: ModelEntry, request: ModelRequest, catalogue: Catalogue) -> ServedModel:
    """Return a model in an engine that hermes starts when it is loaded."""
    model = own(request, catalogue)
    if model.context < request.overrides.least:
        raise DoesNotFitError(
            f"{model.program.engine} gets {model.context:,} tokens of context here, and --for-agent insists on "
            f"{request.overrides.least:,}.",
            hint="give --context, take another model, or leave --for-agent out.",
        )
    if model.path is None:
        return served_model(entry, model, 0, int(time.time()))
    return _from_file(entry, model, model.path)


def _from_file(entry: ModelEntry, model: ServableModel, path: Path) -> ServedModel:
    status = path.stat()
    quantization = quantization_in_file_name(path.name) or read_header(path).file_type
    return served_model(entry, model, status.st_size, int(status.st_mtime), quantization)


def served_model(
    entry: ModelEntry,
    model: ServableModel,
    size: int,
    created: int,
    quantization: str | None = None,
    **more: Any,  # noqa: ANN401 - other fields of `ServedModel`
) -> ServedModel:
    """Return a model with the names and settings of its entry."""
    # What was typed is an alias, but for paths, which nobody types into clients.
    is_path = "/" in entry.model or "\\" in entry.model or entry.model.lower().endswith(".gguf")
    typed = (entry.model,) if entry.name is None and entry.model != model.name and not is_path else ()
    return ServedModel(
        name=entry.name or model.name,
        aliases=tuple(dict.fromkeys((*typed, *entry.aliases))),
        model=model,
        think=entry.think,
        strict_think=bool(entry.strict_think),
        think_end=THINK_END if entry.think_end is None else entry.think_end,
        idle_seconds=None if entry.pin else entry.idle_seconds,
        pin=bool(entry.pin),
        size=size,
        quantization=quantization,
        created=created,
        **more,
    )


def _no_agent(error: HermesError, catalogue: Catalogue, machine: Machine) -> DoesNotFitError:
    """Return the refusal of `--for-agent`, with a model that has enough context here."""
    options = RecommendOptions("agent", AGENT_CONTEXT)
    fitting = recommendations(catalogue, machine, options)
    if not fitting:
        smallest = smallest_variant(catalogue, options)
        would = f"; {smallest[0].name} would, with {memory_size(smallest[1])} of memory" if smallest else ""
        return DoesNotFitError(
            error.message, hint=f"no Hermes model has {AGENT_CONTEXT:,} tokens of context on this machine{would}."
        )
    best = fitting[0]
    kv_type = "" if best.settings.k_type == "f16" else f" --kv-type {best.settings.k_type}"
    yarn = " --yarn" if best.by_yarn else ""
    name = best.variant.name
    serve = f"hermes serve {name} --for-agent{kv_type}{yarn}"
    first = "" if installed(best.variant) else f"hermes pull {name}, then: "
    return DoesNotFitError(error.message, hint=f"this has it: {first}{serve}")
