"""Models that no catalogue lists, as variants to plan with: a file on this disk, or a repository on the Hub.

The header tells tensors and context; where no rules are known for an architecture, llama.cpp's dry run of the header
tells its buffers. Of the Hub only lists of files and headers are fetched, a few MB.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from hermes_cli.catalog.file_names import (
    ModelFiles,
    base_name,
    group_files,
    joined_name,
    quantization_in_file_name,
)
from hermes_cli.catalog.load import HubFile, HubRepository
from hermes_cli.catalog.models import (
    CatalogModel,
    Catalogue,
    ComputedSizes,
    ContextLength,
    GgufFile,
    License,
    PromptSpec,
    ReasoningSupport,
    Repository,
    WeightRepositories,
)
from hermes_cli.catalog.names import HubReference, ModelReference
from hermes_cli.catalog.variants import Variant
from hermes_cli.errors import EngineError, HermesError, NetworkError, NotFoundError
from hermes_cli.gguf.header import GGUFHeader
from hermes_cli.gguf.shards import check_chats, read_model
from hermes_cli.hardware.machine import Machine
from hermes_cli.planning.file_architecture import DryRunPoint, FileArchitecture
from hermes_cli.planning.memory import ContextSettings, FileFacts, Weights, facts_of
from hermes_cli.planning.recommend import RecommendOptions, recommendations, room_for_files, settings_to_try
from hermes_cli.store.library import find

if TYPE_CHECKING:
    from hermes_cli.store.choose_files import FileChoice  # HTTP

UNKNOWN_CONTEXT = 4096  # tokens, of a file that does not say


@dataclass(frozen=True)
class FileVariant(Variant):
    """A model of a file: `path` is the file, or its header with a hole for the weights in `folder`."""

    path: Path
    folder: object = field(default=None, compare=False)


def memory_source(variant: Variant) -> Literal["rules", "dry run"]:
    """Return what tells the KV cache and the compute buffer of a model."""
    architecture = variant.model.architecture
    return "dry run" if isinstance(architecture, FileArchitecture) and not architecture.has_rules else "rules"


def open_variant(reference: ModelReference, typed: str, catalogue: Catalogue, room: int | None = None) -> FileVariant:
    """Return the model of a file or repository; its memory may have to be asked with `measured`.

    What is on this disk is read here, without the Hub. `room` are the bytes that a file may have which is not named.

    Raise HermesError if it is not there, cannot be read, or is not a model to chat with.
    """
    try:
        file = find(reference, catalogue)
    except NotFoundError:
        if isinstance(reference, HubReference):
            return _on_hub(reference, room)
        raise
    paths, headers = read_model(file.path)
    size = sum(path.stat().st_size for path in paths)
    return _variant(headers, str(file.path.parent), typed, (file.path.name, len(paths)), size, file.path)


def measured(variant: Variant, every: Sequence[ContextSettings]) -> Variant:
    """Return the variant with what llama.cpp would allocate with these settings, unless rules tell it.

    Raises:
        EngineError: llama.cpp refuses all of the settings, or does not answer.
        IntegrityError: it refuses the file; the message says why.
    """
    architecture = variant.model.architecture
    if not isinstance(variant, FileVariant) or not isinstance(architecture, FileArchitecture) or architecture.has_rules:
        return variant
    from hermes_cli.engine.embedded.fit_check import dry_runs  # noqa: PLC0415 - only if it is needed

    try:
        results = dry_runs(variant.path, architecture.table(variant.quantization), every)
    except HermesError as error:
        error.message = error.message.replace(str(variant.path), variant.name)
        raise
    points = []
    for settings, result in zip(every, results, strict=True):
        if not result.refusal:
            total = [sum(getattr(part, name) for part in result.parts) for name in ("kv_cache", "compute")]
            points.append(DryRunPoint(settings, *total))
    if not points:
        raise EngineError(
            f"llama.cpp cannot load {variant.name} like this: {results[0].refusal}",
            hint="leave out --kv-type and --context if they are given.",
        )
    known = msgspec.structs.replace(architecture, points=tuple(points))
    return replace(variant, model=msgspec.structs.replace(variant.model, architecture=known))


def quantizations(
    reference: ModelReference, typed: str, catalogue: Catalogue, machine: Machine, options: RecommendOptions
) -> tuple[CatalogModel, ...]:
    """Return what may be recommended for the name of a file or repository: a model for each quantization.

    Of a repository one header is fetched. The weights of the other quantizations are taken to be spread alike, by the
    sizes of their files, until one of them is the best: then its own header is fetched, too.

    Raises:
        HermesError: as of `open_variant` and `measured`.
    """

    def judged(variant: FileVariant) -> CatalogModel:
        return measured(variant, settings_to_try(variant, options)).model

    room = room_for_files(machine)
    if not isinstance(reference, HubReference) or reference.file or reference.quantization:
        return (judged(open_variant(reference, typed, catalogue, room)),)
    try:
        listing, choice = _listed(reference, room)
    except NetworkError:  # what is here will do
        return (judged(open_variant(reference, typed, catalogue, room)),)
    read = {choice.name}
    first = judged(_read(reference.repo, listing, choice.files, choice.name))
    # a mirror may state no sizes
    models = {name: _scaled(first, name, *other) for name, other in choice.others.items() if other[1]}
    models[choice.name] = first
    while True:
        ranked = recommendations(catalogue, machine, replace(options, only=tuple(models.values())))
        best = ranked[0].variant.name if ranked else choice.name
        if best in read:
            return tuple(models.values())
        models[best] = judged(_read(reference.repo, listing, choice.others[best][0].paths, best))
        read.add(best)


def _scaled(model: CatalogModel, name: str, files: ModelFiles, size: int) -> CatalogModel:
    """Return a model in another quantization, of which the files and their bytes are known."""
    architecture = model.architecture
    if not isinstance(architecture, FileArchitecture):
        raise TypeError("the model must be one of a file")
    [(known, table)] = architecture.tables
    ratio, quantization = size / model.sizes.static[known], files.quantization or "GGUF"
    weights = Weights(
        round(table.embedding * ratio),
        tuple(round(layer * ratio) for layer in table.layers),
        round(table.output * ratio),
        table.tied,
    )
    shards = len(files.paths) if len(files.paths) > 1 and not files.is_raw else None
    entry = GgufFile(file=base_name(files.first), bytes=size, shards=shards)
    [repository] = model.gguf
    return msgspec.structs.replace(
        model,
        id=name,
        short=name,
        architecture=msgspec.structs.replace(architecture, tables=((quantization, weights),)),
        sizes=ComputedSizes({quantization: size}, {}),
        gguf=(msgspec.structs.replace(repository, quantizations={quantization: entry}),),
    )


def _variant(
    headers: Sequence[GGUFHeader],  # of all its files
    source: str,  # the repository or folder, to be shown
    label: str,  # the name to be typed
    first_file: tuple[str, int],  # name of the first file, and how many shards there are
    size: int,  # bytes of all files
    path: Path,  # the file, or a skeleton of it, for dry runs
    folder: object = None,  # is kept as long as the variant
) -> FileVariant:
    """Return what the headers of a file, or of all its shards, say as a model in one quantization."""
    header, facts = headers[0], facts_of(headers)
    check_chats(header, label)
    quantization = quantization_in_file_name(first_file[0]) or header.file_type or "GGUF"
    template = header.text("tokenizer.chat_template") or ""
    parameters = sum(math.prod(tensor.shape) for one in headers for tensor in one.tensors)
    name, shards = first_file
    entry = GgufFile(file=base_name(name), bytes=size, shards=shards if shards > 1 else None)
    repository = Repository(repo=source, by="community", quantizations={quantization: entry})
    context = facts.trained_context or UNKNOWN_CONTEXT
    model = CatalogModel(
        id=label,
        short=label,
        name=header.text("general.name") or name,
        generation="",  # none of the catalogue's
        released="unknown",
        base_model="unknown",
        license=License(header.text("general.license") or "unknown"),
        parameters=max(parameters, 1),
        architecture=_architecture(headers, facts, quantization),
        context=ContextLength(context, context),
        prompt=PromptSpec("unknown"),
        tools="tools" in template,
        json_mode=True,
        sampling="unknown",
        weights=WeightRepositories(source),
        sources={},
        sizes=ComputedSizes({quantization: size}, {}),
        reasoning=ReasoningSupport("system-prompt") if "think" in template else None,
        gguf=(repository,),
    )
    return FileVariant(model, quantization, repository, entry, path, folder)


def _architecture(headers: Sequence[GGUFHeader], facts: FileFacts, quantization: str) -> FileArchitecture:
    """Return the architecture that the rules know, or one whose figures give the right speed.

    Speed depends on the elements of a layer that a token meets. Where no rules are known the feed-forward length is
    chosen such that heads and experts make up the elements of the tensors, whatever these are called.
    """
    header, table = headers[0], facts.weights
    tables = ((quantization, table),)
    if facts.architecture:
        return msgspec.structs.replace(facts.architecture, tables=tables)
    name = header.text("general.architecture") or "unknown"

    def number(key: str) -> int:
        return max(header.number(f"{name}.{key}") or 0, 0)

    layers, width, heads = (
        max(len(table.layers), 1),
        max(number("embedding_length"), 1),
        max(number("attention.head_count"), 1),
    )
    kv_heads = min(number("attention.head_count_kv") or heads, heads)
    head_length = number("attention.key_length") or max(width // heads, 1)
    experts = number("expert_count")
    vocabulary = next(
        (tensor.shape[-1] for one in headers for tensor in one.tensors if tensor.name == "token_embd.weight"), 1
    )
    elements = sum(
        math.prod(tensor.shape) for one in headers for tensor in one.tensors if tensor.name.startswith("blk.")
    )
    attention = 2 * (heads + kv_heads) * head_length
    inner = max((elements // layers // width - attention) // (3 * max(experts, 1)), 1)
    return FileArchitecture(
        layers=layers,
        embedding_length=width,
        heads=heads,
        kv_heads=kv_heads,
        head_length=head_length,
        feed_forward_length=inner,
        vocabulary=vocabulary,
        tied_embeddings=table.tied,
        experts=experts,
        experts_used=min(number("expert_used_count"), experts),
        name=name,
        tables=tables,
    )


def _on_hub(name: HubReference, room: int | None) -> FileVariant:
    """Return the model of a repository: the file that is named, or the usual one of those that fit into `room`."""
    listing, choice = _listed(name, room)
    return _read(name.repo, listing, choice.files, choice.name)


def _listed(name: HubReference, room: int | None) -> tuple[HubRepository, FileChoice]:
    """Return the files of a repository on the Hub, and which of them a name means."""
    from hermes_cli.store.choose_files import FileChoice, choose_files  # noqa: PLC0415 - HTTP
    from hermes_cli.store.hub import list_gguf_files  # noqa: PLC0415

    listing = list_gguf_files(name.repo)
    sizes = {file.path: file.bytes for file in listing.files}
    if not name.file:
        return listing, choose_files(name.repo, sizes, name.quantization, room)
    group = next((group for group in group_files(sizes) if name.file in group), None)
    if group is None:
        raise NotFoundError(f"{name.repo} has no {name.file}.", hint=f"see what it has: hermes show {name.repo}")
    return listing, FileChoice(f"{name.repo}/{group[0]}", group, (), {})


def _read(repo: str, listing: HubRepository, chosen: tuple[str, ...], label: str) -> FileVariant:
    """Return the model of some files of a repository by their headers, which are fetched."""
    from hermes_cli.store.hub import read_remote_header  # noqa: PLC0415 - HTTP

    files = {file.path: file for file in listing.files}
    if joined_name(chosen[0]) != chosen[0]:  # raw parts: the first has the header of the whole
        files[chosen[0]] = HubFile(path=chosen[0], bytes=sum(files[path].bytes for path in chosen))
        chosen = chosen[:1]
    folder = tempfile.TemporaryDirectory(prefix="hermes-plan-")
    headers, skeletons = [], []
    for path in chosen:
        skeletons.append(Path(folder.name) / path.rpartition("/")[2])
        headers.append(read_remote_header(repo, files[path], listing.revision, skeletons[-1])[0])
    size = sum(header.file_size for header in headers)
    return _variant(headers, repo, label, (chosen[0], len(chosen)), size, skeletons[0], folder)
