"""What `hermes serve` does once its settings are known: which models, the banner, and the server itself."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import msgspec

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.commands.choosing import best_installed
from hermes_cli.commands.drafting import draft_for
from hermes_cli.console import Voice
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.recommend import RecommendOptions
from hermes_cli.server.app import EVERYWHERE
from hermes_cli.server.planning import AGENT_CONTEXT, check_room, plan_models
from hermes_cli.server.run import ServerInfo, ServerParts, serve
from hermes_cli.units import gibibytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_cli.catalog.models import CatalogModel, Catalogue
    from hermes_cli.console import Console
    from hermes_cli.engine.embedded.options import DraftPlan
    from hermes_cli.hardware.machine import Machine
    from hermes_cli.planning.fitted_plan import FittedPlan
    from hermes_cli.planning.load_plan import LoadOverrides
    from hermes_cli.planning.recommend import Recommendation
    from hermes_cli.server.planning import ServedModel
    from hermes_cli.server.settings import ModelEntry, ServerSettings


def serve_models(settings: ServerSettings, console: Console, *, verbose: bool) -> bool:
    """Serve until a signal comes; whether what ran could finish.

    Raises:
        HermesError: the port is in use, or a model is not here, does not fit or cannot be loaded.
    """
    waiting = _Waiting(console)

    def offers() -> tuple[ServedModel, ...]:
        catalogue, machine = load_catalogue(), probe(measure=False)
        chosen = settings.models or (best_entry(settings, catalogue, machine, console),)

        def draft(
            name: str, known: CatalogModel | None, wished: LoadOverrides, confirmed: FittedPlan
        ) -> DraftPlan | None:
            return draft_for(name, known, catalogue, wished, confirmed, console.note)

        waiting.begin("looking how the models fit")
        whole = msgspec.structs.replace(settings, models=chosen)
        return plan_models(whole, catalogue, machine, draft, console.note)

    def engine(offer: ServedModel) -> EmbeddedEngine:
        options = replace(offer.options, verbose=verbose)

        def progress(part: float) -> None:
            waiting.show(f"loading {offer.name}: {part:.0%}")

        return EmbeddedEngine(offer.path, offer.confirmed.plan, options, progress=progress)

    def started(info: ServerInfo) -> None:
        waiting.end()
        _say_started(info, console)

    logged = settings.log_json or console.voice is Voice.HUMAN
    write = console.log if logged else _nothing
    try:
        return serve(settings, ServerParts(offers, engine, check_room, started, write, console.note))
    finally:
        waiting.end()


class _Waiting:
    """What is shown until the server is ready; nothing before it begins and after it ends."""

    def __init__(self, console: Console) -> None:
        self._console, self._shown = console, ExitStack()
        self.show: Callable[[str], None] = _nothing

    def begin(self, message: str) -> None:
        """Show it from now on."""
        self.show = self._shown.enter_context(self._console.working(message))

    def end(self) -> None:
        """It is there, or will never be."""
        self.show = _nothing
        self._shown.close()


def _nothing(_: str) -> None:
    """Say nothing."""


def best_entry(settings: ServerSettings, catalogue: Catalogue, machine: Machine, console: Console) -> ModelEntry:
    """The best model that is here, or was fetched after a question.

    Raises:
        HermesError: there is none.
    """
    wish = RecommendOptions("agent", AGENT_CONTEXT) if settings.for_agent else RecommendOptions()
    return _as_recommended(best_installed("serve", wish, catalogue, machine, console), settings)


def _as_recommended(best: Recommendation, settings: ServerSettings) -> ModelEntry:
    """With the KV cache and the YaRN that were counted on, where nothing else was said."""
    entry = settings.entry(best.variant.name)
    if best.settings.k_type != "f16" and entry.kv_type is None:
        entry = msgspec.structs.replace(entry, kv_type=best.settings.k_type)
    return msgspec.structs.replace(entry, yarn=True) if best.by_yarn and entry.yarn is None else entry


def _say_started(info: ServerInfo, console: Console) -> None:
    """The banner: what runs where, and what to paste into a client."""
    settings = info.settings
    address = f"http://{_host(settings.host)}:{info.port}"
    key = settings.keys[0].secret if settings.own_key else None
    console.document(_document(info, address, key))
    if console.voice is Voice.QUIET:
        console.text("".join(f"{line}\n" for line in (f"{address}/v1", key) if line))
        return
    everywhere = " and every other address of this machine" if settings.host in EVERYWHERE else ""
    console.text(f"hermes serves {address}/v1{everywhere}\n\n")
    for number, offer in enumerate(info.models):
        console.text(f"  {offer.name}{_other_names(offer)}\n")
        slots = offer.confirmed.plan.settings.slots
        console.text(f"    {offer.context:,} tokens of context for each request, {slots} at once\n")
        when = "" if number == 0 else ", loaded when it is asked for"
        console.text(f"    {_memory(offer)}{when}\n")
        if offer.confirmed.note:
            console.note(f"    {offer.confirmed.note}")
    if key:
        console.text(f"\n  key, made for this run and shown only now: {key}\n")
        console.note("  your own: --api-key-file FILE")
    elif not settings.keys and not info.local:
        console.warn("  anybody who can reach this address may use it: --insecure")
    shown = key or ("YOUR-KEY" if settings.keys else "none")
    console.text(f"\n  export OPENAI_BASE_URL={address}/v1 OPENAI_API_KEY={shown}\n\n")
    console.note("Ctrl-C stops it.")


def _host(host: str) -> str:
    """What a client on this machine types."""
    if host in EVERYWHERE:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _other_names(offer: ServedModel) -> str:
    return f", also called {', '.join(offer.aliases)}" if offer.aliases else ""


def _memory(offer: ServedModel) -> str:
    """What it takes of what was free, place by place, as llama.cpp said it would."""
    places = [place for place in offer.confirmed.places if place.part.total]
    draft = offer.options.draft
    parts = [f"{gibibytes(place.part.total)} of {gibibytes(place.room)} free {place.where}" for place in places]
    return ", ".join(parts + ([f"{gibibytes(draft.bytes)} for the draft model {draft.path.stem}"] if draft else []))


def _document(info: ServerInfo, address: str, key: str | None) -> dict[str, Any]:
    return {
        "address": f"{address}/v1",
        "api_key": key,
        "models": [_model(offer) for offer in info.models],
    }


def _model(offer: ServedModel) -> dict[str, Any]:
    plan = offer.confirmed.plan
    return {
        "name": offer.name,
        "aliases": list(offer.aliases),
        "context_length": offer.context,
        "slots": plan.settings.slots,
        "kv_type": plan.settings.k_type,
        "gpu_layers": offer.confirmed.gpu_layers,
        "memory": [
            {"place": place.name, "bytes": {**asdict(place.part), "total": place.part.total}, "free_bytes": place.room}
            for place in offer.confirmed.places
        ],
        "draft": {"file": draft.path.name, "bytes": draft.bytes} if (draft := offer.options.draft) else None,
        "note": offer.confirmed.note or None,
    }
