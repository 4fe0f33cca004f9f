"""`hermes list`: the Hermes models, or the files on this machine, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.catalog.variants import Variant, normalize_name, preferred_variants, variants
from hermes_cli.commands.options import JsonOption, NoColorOption, QuietOption, console_for
from hermes_cli.errors import UsageError
from hermes_cli.store.disk import bytes_on_disk
from hermes_cli.store.inventory import InstalledModel, InstalledState, inventory
from hermes_cli.store.library import installed, installed_quantizations
from hermes_cli.units import billions, gigabytes

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel, Catalogue, DemoModel
    from hermes_cli.console import Console

HERE = "✓"
MODEL_TITLES = ("NAME", "PARAMETERS", "CONTEXT", "TOOLS", "THINKS", "FILES", "HERE")
VARIANT_TITLES = ("NAME", "SIZE", "BITS/WEIGHT", "LOSS", "HERE", "REPOSITORY")
INSTALLED_TITLES = ("NAME", "SIZE", "STATE", "REVISION", "FILE")
STATES: dict[InstalledState, str] = {
    "verified": "verified",
    "unverified": "not verified",
    "damaged": "damaged",
    "incomplete": "",
}


def command(
    every: Annotated[bool, typer.Option("--all", "-a", help="Every quantization in every repository.")] = False,
    generation: Annotated[
        str | None, typer.Option(help="Only this generation: 'Hermes 3', 4.3, 'DeepHermes 3' …")
    ] = None,
    tools: Annotated[bool, typer.Option("--tools", help="Only models trained for tool calls.")] = False,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Only models that can think first.")] = False,
    here: Annotated[bool, typer.Option("--installed", help="The files on this machine.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    no_color: NoColorOption = False,
) -> None:
    """List the Hermes models, newest generation first.

    Sizes are those of the smallest and the largest file; a check mark stands where a file is on this machine. With
    --installed: every model file in the Hub's cache, whoever fetched it, and all imported ones.
    """
    console = console_for(json=json, quiet=quiet, no_color=no_color)
    catalogue = load_catalogue()
    models = [
        model
        for model in _of_generation(catalogue, generation)
        if (model.tools or not tools) and (model.reasoning or not reasoning)
    ]
    if here:
        chosen = {model.id for model in models}
        every_model = len(models) == len(catalogue.models)
        _show_installed(
            [entry for entry in inventory(catalogue) if every_model or (entry.model and entry.model.id in chosen)],
            console,
        )
    elif every:
        _show_variants([variant for model in models for variant in variants(model)], console)
    else:
        _show_models(models, catalogue.demo if generation is None else None, console)


def _show_installed(found: list[InstalledModel], console: Console) -> None:
    if found:
        rows = [(entry.name, gigabytes(entry.bytes), _state(entry), _revisions(entry), entry.file) for entry in found]
        console.table(INSTALLED_TITLES, rows, right=("SIZE",))
    console.document({"models": [installed_document(entry) for entry in found]})
    if found:
        console.note("verified: has the hash that the Hub publishes, and not changed since · hash again: hermes verify")
    else:
        console.note("nothing is here yet; fetch a model: hermes pull · the demo is always here: hermes chat demo")


def _state(model: InstalledModel) -> str:
    return STATES[model.state] or f"incomplete: {model.present} of {model.count} files"


def _revisions(model: InstalledModel) -> str:
    return ", ".join(revision[:7] for revision in model.revisions) if model.repo else "imported"


def installed_document(entry: InstalledModel) -> dict[str, Any]:
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


def _show_models(models: list[CatalogModel], demo: DemoModel | None, console: Console) -> None:
    rows = [_model_row(model) for model in models]
    if demo:
        context = f"{demo.trained_context:,}"
        rows.append(("demo", billions(demo.parameters), context, "yes", "yes", gigabytes(demo.bytes), HERE))
    console.table(MODEL_TITLES, rows, right=("PARAMETERS", "CONTEXT"))
    console.document({"models": [model_summary(model) for model in models]})
    console.note("all about one: hermes show NAME · every file: hermes list --all")


def _show_variants(found: list[Variant], console: Console) -> None:
    catalogue = load_catalogue()
    rows = [_variant_row(variant, catalogue) for variant in found]
    console.table(VARIANT_TITLES, rows, right=("SIZE", "BITS/WEIGHT", "LOSS"))
    console.document({"variants": [variant_document(variant, catalogue) for variant in found]})
    console.note("loss: KL divergence from F16 in nats, measured on Llama 3 8B; less for larger models")


def _of_generation(catalogue: Catalogue, wanted: str | None) -> list[CatalogModel]:
    """Return the models of a generation, given its name or the rest of it without `Hermes`."""
    if wanted is None:
        return list(catalogue.models)
    names = dict.fromkeys(model.generation for model in catalogue.models)
    matching = [
        name
        for name in names
        if normalize_name(wanted) in {normalize_name(name), normalize_name(name.removeprefix("Hermes"))}
    ]
    if not matching:
        raise UsageError(f"there is no generation {wanted}.", hint=f"choose one of: {', '.join(names)}")
    return [model for model in catalogue.models if model.generation in matching]


def _model_row(model: CatalogModel) -> tuple[str, ...]:
    sizes = [variant.bytes for variant in variants(model) if variant.bytes]
    if not sizes:
        files = "none known"
    elif min(sizes) == max(sizes):
        files = gigabytes(sizes[0])
    else:
        files = f"{gigabytes(min(sizes))} to {gigabytes(max(sizes))}"
    return (
        model.short,
        billions(model.parameters),
        f"{model.context.usable:,}",
        "yes" if model.tools else "",
        "yes" if model.reasoning else "",
        files,
        HERE if installed_quantizations(model) else "",
    )


def _variant_row(variant: Variant, catalogue: Catalogue) -> tuple[str, ...]:
    bits = variant.bits_per_weight
    loss = variant.loss(catalogue)
    return (
        variant.name,
        gigabytes(variant.bytes),
        f"{bits:.2f}" if bits else "",
        "" if loss is None else f"{loss:.4f}",
        HERE if installed(variant) else "",
        variant.repository.repo,
    )


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
