"""`hermes list`: the Hermes models, or the files on this machine, as a table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hermes_cli import paths
from hermes_cli.catalog.engine_weights import EngineWeights, engine_weights
from hermes_cli.catalog.file_names import normalize_name
from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.models import CatalogModel, Catalogue
from hermes_cli.catalog.variants import Variant, preferred_variants, variants
from hermes_cli.commands.completing import generations
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console, Voice
from hermes_cli.errors import AccessError, NotFoundError, UsageError
from hermes_cli.store.disk import bytes_on_disk
from hermes_cli.store.inventory import InstalledModel, inventory
from hermes_cli.store.library import installed, installed_quantizations
from hermes_cli.store.weights import installed_weights
from hermes_cli.units import billions, gigabytes

HERE = "✓"
FITS = {"fits": "● yes", "tight": "◐ tight", "no": "○ no"}
FIRST_SHOWN = "Hermes 3"
ENOUGH_BITS = 4.0  # per weight; below, answers are visibly worse
MODEL_TITLES = ("NAME", "PARAMS", "CONTEXT", "TOOLS", "THINKS", "FILES", "FITS", "HERE")
VARIANT_TITLES = ("NAME", "SIZE", "BITS/WEIGHT", "LOSS", "HERE", "REPOSITORY")
UPDATE_TITLES = ("NAME", "UPDATE", "SIZE", "REVISION")
INSTALLED_TITLES = ("NAME", "SIZE", "STATE", "REVISION", "FILE")


@with_console
def command(
    console: Console,
    words: Annotated[
        list[str] | None, argument("[WORD]...", "Only what has these words in its name: 8b, hermes-4.")
    ] = None,
    older: Annotated[bool, typer.Option("--older", help="Also the generations before Hermes 3.")] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every quantization in every repository.")] = False,
    generation: Annotated[
        str | None,
        typer.Option(help="Only this generation: 'Hermes 3', 4.3, 'DeepHermes 3' …", autocompletion=generations),
    ] = None,
    tools: Annotated[bool, typer.Option("--tools", help="Only models trained for tool calls.")] = False,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Only models that can think first.")] = False,
    here: Annotated[bool, typer.Option("--installed", help="The files on this machine.")] = False,
    newer: Annotated[
        bool, typer.Option("--updates", help="The files on this machine, and which the Hub has newer ones of.")
    ] = False,
) -> None:
    """List the Hermes models, newest generation first.

    Sizes are those of the smallest and the largest file. Whether a model fits this machine is marked, and a check mark
    stands where a file is here. The generations before Hermes 3 are left out unless they are asked for. With
    --installed: every model file in the Hub's cache, whoever fetched it, and all imported ones. With --updates: the
    same, compared with what their repositories hold today; without a network it says that this is not known.
    """
    catalogue = load_catalogue()
    models = [
        model
        for model in _of_generation(catalogue, generation)
        if (model.tools or not tools) and (model.reasoning or not reasoning)
        if _has_words(words, model.short, model.name, model.id)
    ]
    if words and not models and not (here or newer):
        text = " ".join(words)
        found_here = text.lower() in {"installed", "local", "downloaded", "here"}
        hint = "what is here: hermes list --installed" if found_here else f"search the Hub: hermes search {text}"
        raise NotFoundError(f"no Hermes model has {text} in its name.", hint=hint)
    if here or newer:
        entries, ids = inventory(catalogue), {model.id for model in models}
        if len(models) < len(catalogue.models):
            entries = [
                entry
                for entry in entries
                if (entry.model and entry.model.id in ids) or (words and _has_words(words, entry.name, entry.file))
            ]
        if newer:
            _show_updates(entries, console)
        else:
            _show_installed(entries, console)
    elif every:
        offered = [variant for model in models for variant in variants(model)]
        others = [weights for model in models for weights in engine_weights(model)]
        table = [
            (variant.name, gigabytes(variant.bytes), *measures(variant, catalogue), variant.repository.repo)
            for variant in offered
        ]
        table += [
            (weights.name, gigabytes(weights.bytes), f"{weights.bits_per_weight:.2f}", "", _here(weights), weights.repo)
            for weights in others
        ]
        console.table(VARIANT_TITLES, table, right=("SIZE", "BITS/WEIGHT", "LOSS"), optional=("REPOSITORY",))
        console.document(
            {
                "variants": [variant_document(variant, catalogue) for variant in offered],
                "weights": [weights_document(weights) for weights in others],
            }
        )
        console.note("@: weights for vLLM and SGLang, whole repositories · hermes plan NAME --engine vllm")
        console.note("loss: KL divergence from F16 in nats, measured on Llama 3 8B; less for larger models")
    else:
        _show_models(models, catalogue, console, folded=not (older or words or generation or tools or reasoning))
    if not here:
        try:
            paths.readable(paths.models_dir())
        except AccessError as error:
            console.warn(f"{error.message} {error.hint}")


def _show_models(models: list[CatalogModel], catalogue: Catalogue, console: Console, *, folded: bool) -> None:
    """Show models of the catalogue; for people without the older generations if these are `folded`."""
    count = len(models)
    if folded and console.voice is Voice.HUMAN:  # the newest come first
        count = 1 + max(at for at, model in enumerate(models) if model.generation == FIRST_SHOWN)
    shown = models[:count]
    fits = _fits(shown, catalogue) if console.voice is not Voice.JSON else {}
    rows = [_model_row(model, fits[model.id]) for model in shown] if fits else []
    if len(models) == len(catalogue.models):
        demo = catalogue.demo
        context = f"{demo.trained_context:,}"
        rows.append(
            ("demo", billions(demo.parameters), context, "yes", "yes", gigabytes(demo.bytes), FITS["fits"], HERE)
        )
    console.document({"models": [model_summary(model) for model in models]})
    if not rows:
        console.note("no Hermes model matches all of this; all models: hermes list --older")
        return
    styles = ["bold" if row[-1] else "dim" if row[-2] == FITS["no"] else "" for row in rows]
    console.table(MODEL_TITLES, rows, right=("PARAMS", "CONTEXT"), optional=("CONTEXT",), styles=styles)
    console.note("tight: slow here, or only with fewer than 4 bits per weight")
    if len(shown) < len(models):
        console.note(f"{len(models) - len(shown)} older ones: hermes list --older")
    console.note("details of one: hermes show NAME · every file: hermes list --all")


def _fits(models: Sequence[CatalogModel], catalogue: Catalogue) -> dict[str, str]:
    """Return for each model how well it fits this machine, for chatting: a value of `FITS`."""
    from hermes_cli.hardware.probe import probe
    from hermes_cli.planning.recommend import RecommendOptions, recommendations, shortfalls
    from hermes_cli.store.benchmarks import speed_ratios

    machine = probe()
    fits = dict.fromkeys((model.id for model in models), FITS["no"])
    options = RecommendOptions(measured=speed_ratios(machine), only=tuple(models))
    for candidate in recommendations(catalogue, machine, options) if models else ():
        well = (candidate.variant.bits_per_weight or 0) >= ENOUGH_BITS and not shortfalls(candidate, "chat")
        if fits[candidate.variant.model.id] != FITS["fits"]:
            fits[candidate.variant.model.id] = FITS["fits" if well else "tight"]
    return fits


def _has_words(words: Sequence[str] | None, *names: str) -> bool:
    """Return whether each of the words is in one of the names; a size such as `7b` is not in `10.7b` or `8x7b`."""
    texts = [name.lower() for name in names]
    return all(
        any(re.search(rf"(?<![\d.x]){re.escape(word.lower())}", text) for text in texts)
        or any(normalize_name(word) in normalize_name(text) for text in texts if not word[:1].isdigit())
        for word in words or ()
    )


def _of_generation(catalogue: Catalogue, wanted: str | None) -> list[CatalogModel]:
    """Return the models of a generation, given its name or the rest of it without `Hermes`."""
    if wanted is None:
        return list(catalogue.models)
    names = dict.fromkeys(model.generation for model in catalogue.models)
    matching = {
        name
        for name in names
        if normalize_name(wanted) in {normalize_name(name), normalize_name(name.removeprefix("Hermes"))}
    }
    if not matching:
        raise UsageError(f"there is no generation {wanted}.", hint=f"choose one of: {', '.join(names)}")
    return [model for model in catalogue.models if model.generation in matching]


def _show_installed(entries: list[InstalledModel], console: Console) -> None:
    states = {"verified": "verified", "unverified": "not verified", "damaged": "damaged"}
    rows = [
        (
            entry.name,
            gigabytes(entry.bytes),
            states.get(entry.state, f"incomplete: {entry.present} of {entry.count} files"),
            ", ".join(revision[:7] for revision in entry.revisions) if entry.repo else "imported",
            f"{entry.count} files" if entry.is_weights else entry.file,
        )
        for entry in entries
    ]
    if entries:
        console.table(INSTALLED_TITLES, rows, right=("SIZE",), optional=("REVISION", "FILE"))
        console.note(
            "verified: it has the hash that the Hub publishes, and has not changed since · check again: hermes verify"
        )
    else:
        console.note(
            "no model is installed yet; fetch a model: hermes pull · the demo is always here: hermes chat demo"
        )
    console.document({"models": [_installed_document(entry) for entry in entries]})


def _show_updates(entries: list[InstalledModel], console: Console) -> None:
    from hermes_cli.store.updates import find_updates

    with console.working("asking the Hub"):
        warnings: list[str] = []
        updates = find_updates(entries, warnings.append)
    for warning in warnings:
        console.warn(warning)
    rows = []
    for update in updates:
        newest = (update.revision or "")[:7]
        texts = {
            "current": "none",
            "outdated": f"newer at {newest}",
            "superseded": f"the newer one of {newest} is here, too",
            "removed": f"no longer there at {newest}",
            "unknown": "imported" if update.model.repo is None else "unknown",
        }
        revisions = ", ".join(revision[:7] for revision in update.model.revisions)
        rows.append((update.model.name, texts[update.state], gigabytes(update.model.bytes), revisions))
    if rows:
        console.table(UPDATE_TITLES, rows, right=("SIZE",), optional=("REVISION",), prose="UPDATE")
    else:
        console.note("no model is installed yet; fetch a model: hermes pull")
    outdated = list(dict.fromkeys(update.model.name for update in updates if update.state == "outdated"))
    if outdated:
        console.note(f"fetch what is newer: hermes pull {shlex.join(outdated)}")
    console.document(
        {
            "models": [
                {**_installed_document(update.model), "update": update.state, "newest_revision": update.revision}
                for update in updates
            ]
        }
    )


def _installed_document(entry: InstalledModel) -> dict[str, Any]:
    """Return an installed model for `--json`; keys are documented in docs/library.md."""
    return {
        "name": entry.name,
        "model": entry.model.short if entry.model else None,
        "quantization": entry.quantization,
        "repository": entry.repo,
        "revisions": list(entry.revisions),
        "file": entry.file,
        "path": str(entry.path),
        "paths": [str(file.path) for file in entry.files],
        "bytes": entry.bytes,
        "disk_bytes": bytes_on_disk(file.path for file in entry.files),
        "files": entry.present,
        "files_expected": entry.count,
        "sha256": [file.sha256 for file in entry.files],
        "state": entry.state,
    }


def _model_row(model: CatalogModel, fits: str) -> tuple[str, ...]:
    sizes = sorted(variant.bytes for variant in variants(model) if variant.bytes)
    least, most = (gigabytes(size) for size in (sizes[0], sizes[-1])) if sizes else ("", "")
    files = most if least == most else f"{least.removesuffix(' GB') if most.endswith(' GB') else least} to {most}"
    return (
        model.short,
        billions(model.parameters),
        f"{model.context.usable:,}",
        "yes" if model.tools else "",
        "yes" if model.reasoning else "",
        files or "none known",
        fits if files else "",
        HERE if installed_quantizations(model) else "",
    )


def measures(variant: Variant, catalogue: Catalogue) -> tuple[str, str, str]:
    """Return the cells BITS/WEIGHT, LOSS and HERE of a variant."""
    bits, loss = variant.bits_per_weight, variant.loss(catalogue)
    return f"{bits:.2f}" if bits else "", "" if loss is None else f"{loss:.4f}", HERE if installed(variant) else ""


def _here(weights: EngineWeights) -> str:
    return HERE if installed_weights(weights.repo) else ""


def weights_rows(model: CatalogModel) -> list[tuple[str, ...]]:
    """Return the cells NAME, SIZE, BY, HERE and REPOSITORY of a model's weights for vLLM and SGLang."""
    return [
        (
            f"@{weights.suffix}",
            gigabytes(weights.bytes),
            "official" if weights.official else "community",
            _here(weights),
            weights.repo,
        )
        for weights in engine_weights(model)
    ]


def weights_document(weights: EngineWeights) -> dict[str, Any]:
    """Return weights for vLLM and SGLang for `--json`; keys are documented in docs/catalogue.md."""
    return {
        "name": weights.name,
        "model": weights.model.short,
        "format": weights.suffix,
        "repository": weights.repo,
        "official": weights.official,
        "license": weights.model.license.id,
        "files": "config, tokenizer, templates, index and shards of safetensors",
        "bytes": weights.bytes,
        "bytes_source": "computed",
        "installed": installed_weights(weights.repo) is not None,
    }


def model_summary(model: CatalogModel) -> dict[str, Any]:
    """Return a model for `--json`; keys are documented in docs/catalogue.md."""
    sizes = [variant.bytes for variant in preferred_variants(model) if variant.bytes]
    return {
        "name": model.short,
        "id": model.id,
        "title": model.name,
        "generation": model.generation,
        "released": model.released,
        "parameters": model.parameters,
        "context_length": model.context.usable,
        "tools": model.tools,
        "json_mode": model.json_mode,
        "reasoning": model.reasoning is not None,
        "smallest_bytes": min(sizes, default=None),
        "largest_bytes": max(sizes, default=None),
        "installed": sorted(installed_quantizations(model)),
    }


def variant_document(variant: Variant, catalogue: Catalogue) -> dict[str, Any]:
    """Return a variant for `--json`; keys are documented in docs/catalogue.md."""
    return {
        "name": variant.name,
        "model": variant.model.short,
        "quantization": variant.quantization,
        "repository": variant.repository.repo,
        "revision": variant.repository.revision,
        "files": list(variant.files),
        "bytes": variant.bytes,
        "bytes_source": variant.size_source,
        "bits_per_weight": variant.bits_per_weight,
        "kl_divergence": variant.loss(catalogue),
        "sha256": variant.entry.sha256,
        "installed": installed(variant) is not None,
    }


def is_here(variant: Variant) -> bool:
    """Return whether a file of the catalogue is installed, or one that was given by its path exists."""
    return installed(variant) is not None or Path(variant.repository.repo, variant.files[0]).is_file()


def where_it_is(variant: Variant) -> str:
    """Return `here`, or what has to be fetched: `4.92 GB to fetch`."""
    return "here" if is_here(variant) else f"{gigabytes(variant.bytes)} to fetch"
