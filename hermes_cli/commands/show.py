"""`hermes show`: one page about a model of the catalogue, a file, or a repository on the Hub."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from hermes_cli.catalog.file_names import matching_models, models_in, quantization_in_file_name
from hermes_cli.catalog.load import HubFile, load_catalogue
from hermes_cli.catalog.names import CatalogueReference, HubReference, ModelNames, WeightsReference
from hermes_cli.commands import model_page
from hermes_cli.commands.completing import models
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import HermesError, NotFoundError, UsageError
from hermes_cli.gguf.header import GGUFHeader, read_header
from hermes_cli.gguf.shards import read_model, why_no_chat
from hermes_cli.store.library import find
from hermes_cli.units import billions, gigabytes

TEMPLATE_KEY = "tokenizer.chat_template"
DIMENSIONS = {
    "layers": "block_count",
    "embedding": "embedding_length",
    "heads": "attention.head_count",
    "KV heads": "attention.head_count_kv",
    "feed-forward": "feed_forward_length",
    "experts": "expert_count",
}


@with_console
def command(
    console: Console,
    name: Annotated[str, argument("NAME", "A model, a file.gguf, or owner/repository on the Hub.", models)],
    sources: Annotated[
        bool, typer.Option("--sources", help="Also where each fact is from, and all repositories with files.")
    ] = False,
) -> None:
    """Show everything about one model, a file or a repository.

    Of a model of the catalogue first what fits this machine.
    Of a repository that is not in the catalogue only the list of files and the header of one are fetched, a few MB.
    """
    catalogue = load_catalogue()
    reference = ModelNames(catalogue).parse(name)
    if isinstance(reference, CatalogueReference):
        model_page.show(reference, catalogue, console, sources=sources)
    elif isinstance(reference, WeightsReference) and reference.weights:
        model_page.show(CatalogueReference(reference.weights.model), catalogue, console, sources=sources)
    elif isinstance(reference, WeightsReference):
        _show_repository(HubReference(reference.repo), console)
    elif isinstance(reference, HubReference):
        _show_repository(reference, console)
    else:
        file = find(reference, catalogue)
        # by its tokens a template of another model is noticed
        header = read_header(file.path, ("tokenizer.ggml.tokens",))
        problem = _shard_problem(file.path)
        _show_header(file.name, header, console, problem)
        text = f"{problem.message} Next: {problem.hint}" if problem else None
        console.document({"name": file.name, "path": str(file.path), **_document(header), "problem": text})


def _shard_problem(path: Path) -> HermesError | None:
    """Return what is wrong with the shards of a file; None if nothing is."""
    try:
        read_model(path)
    except HermesError as error:
        return error
    return None


def _show_repository(wanted: HubReference, console: Console) -> None:
    """Show the files of a repository that is not in the catalogue, and the header of one of them."""
    with console.working(f"asking the Hub about {wanted.repo}"):
        from hermes_cli.store import hub

        listing = hub.list_gguf_files(wanted.repo)
        shown = _choose_file(wanted, {file.path: file for file in listing.files})
        header, fetched = hub.read_remote_header(wanted.repo, shown, listing.revision)
    _show_header(f"{wanted.repo}/{shown.path}", header, console)
    console.prose(f"\nFiles at revision {listing.revision}", hanging="  ")
    files = [(file, quantization_in_file_name(file.path)) for file in listing.files]
    rows = [(file.path, gigabytes(file.bytes or None), quantization or "") for file, quantization in files]
    console.table(("FILE", "SIZE", "QUANTIZATION"), rows, right=("SIZE",))
    console.note(f"read {fetched:,} bytes of its header; nothing else was fetched")
    console.document(
        {
            "name": wanted.repo,
            "revision": listing.revision,
            "files": [
                {"path": file.path, "bytes": file.bytes or None, "sha256": file.sha256, "quantization": quantization}
                for file, quantization in files
            ],
            "file": shown.path,
            **_document(header),
        }
    )


def _choose_file(wanted: HubReference, files: dict[str, HubFile]) -> HubFile:
    """Return the file whose header is shown: the named one, or Q4_K_M, or the first."""
    if not files:
        raise NotFoundError(
            f"{wanted.repo} has no GGUF files.",
            hint=f"look for one that has some: hermes search {wanted.repo.rpartition('/')[2]}",
        )
    models, _ = models_in(files)
    if wanted.file:
        matching = [path for path in files if path == wanted.file]
    else:
        matching = [model.first for model in matching_models(models, wanted.quantization or "Q4_K_M")]
    if not matching and (wanted.file or wanted.quantization):
        known = ", ".join(list(files)[:8])
        raise NotFoundError(f"{wanted.repo} has no {wanted.file or wanted.quantization}.", hint=f"it has: {known}")
    return files[next(iter(matching or [model.first for model in models] or files))]


def _show_header(name: str, header: GGUFHeader, console: Console, problem: HermesError | None = None) -> None:
    console.prose(f"{name}\n", hanging="  ")
    rows = [("PROBLEM", problem.message), ("next", problem.hint)] if problem else []
    console.facts([*rows, *_facts(header, name)], indent="  ")


def _document(header: GGUFHeader) -> dict[str, Any]:
    """Return the header for `--json`; keys are documented in docs/catalogue.md."""
    return {
        "architecture": header.text("general.architecture"),
        "title": header.text("general.name"),
        "quantization": header.file_type,
        "file_bytes": header.file_size,
        "parameters": _parameters(header),
        "bits_per_weight": _bits(header),
        "context_length": header.number("context_length"),
        "layers": header.number("block_count"),
        "license": header.text("general.license"),
        "chat_templates": list(_templates(header)),
        "not_to_chat_with": why_no_chat(header),
        "shard": [header.split.number, header.split.count] if header.split else None,
        "gguf_version": header.version,
        "tensor_types": _tensor_types(header),
        "metadata": {
            key: None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN
            for key, value in header.metadata.items()
            if isinstance(value, (int, float, str))
        },
    }


def _facts(header: GGUFHeader, name: str) -> Iterator[tuple[str, str]]:
    bits = f", {_bits(header):.2f} bits per weight" if header.tensors else ""
    yield "title", header.text("general.name") or "not stated"
    yield "size", f"{gigabytes(header.file_size)} ({header.file_size:,} bytes){bits}"
    if why := why_no_chat(header):
        yield "not to chat with", why
    if header.split:
        yield "shard", f"{header.split.number} of {header.split.count}; the others hold the rest"
    yield "format", f"GGUF version {header.version}, {len(header.tensors)} tensors"
    types = ", ".join(f"{count} {kind}" for kind, count in _tensor_types(header).items())
    yield "quantization", (header.file_type or "not stated") + (f" ({types})" if types else "")
    yield "parameters", f"{billions(_parameters(header))} ({_parameters(header):,})"
    kind = header.text("general.architecture") or "not stated"
    stated = [f"{label} {value:,}" for label, key in DIMENSIONS.items() if (value := header.number(f"{kind}.{key}"))]
    yield "architecture", ", ".join([kind, *stated])
    context = header.number("context_length")
    yield "context", f"{context:,} tokens" if context else "not stated"
    yield "tokenizer", header.text("tokenizer.ggml.model") or "not stated"
    if not why_no_chat(header):
        yield "chat template", _template(header, name)
    yield "licence", header.text("general.license") or "not stated"


def _parameters(header: GGUFHeader) -> int:
    return sum(math.prod(tensor.shape) for tensor in header.tensors if not tensor.name.startswith("rope_"))


def _bits(header: GGUFHeader) -> float:
    return sum(tensor.size for tensor in header.tensors) * 8 / max(_parameters(header), 1)


def _tensor_types(header: GGUFHeader) -> dict[str, int]:
    return dict(Counter(tensor.type_name for tensor in header.tensors).most_common())


def _templates(header: GGUFHeader) -> dict[str, str]:
    """Return the chat templates of a file by name; the one without a name is the default."""
    return {
        key.removeprefix(TEMPLATE_KEY).lstrip(".") or "default": value
        for key, value in header.metadata.items()
        if key.startswith(TEMPLATE_KEY) and isinstance(value, str)
    }


def _template(header: GGUFHeader, name: str) -> str:
    """Return the template that is used for this file, and why."""
    from hermes_cli.prompting.choose import FileTemplates, choose, identify

    tokens = header.metadata.get("tokenizer.ggml.tokens")
    templates = _templates(header)
    vocabulary = frozenset(tokens) if isinstance(tokens, tuple) else None  # only if the header was read with it
    if not templates and vocabulary is None:
        return "none: hermes takes ChatML or Alpaca, by its tokens"
    carried = FileTemplates(templates, vocabulary.__contains__) if vocabulary else FileTemplates(templates)
    labels = (header.text("general.name") or "", name.rpartition("/")[2].removesuffix(".gguf"))
    model = identify(labels, header.number, load_catalogue())
    try:
        return choose(carried, model).why
    except UsageError as error:
        return error.message
