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
from typing import Literal

import msgspec

from hermes_cli.catalog.file_names import base_name, group_files, joined_name, models_in, quantization_in_file_name
from hermes_cli.catalog.load import HubFile
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
from hermes_cli.errors import EngineError, HermesError, NotFoundError
from hermes_cli.gguf.header import GGUFHeader
from hermes_cli.gguf.shards import check_chats, read_model
from hermes_cli.planning.file_architecture import DryRunPoint, FileArchitecture
from hermes_cli.planning.memory import ContextSettings, FileFacts, facts_of
from hermes_cli.store.library import find

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

    Raises:
        HermesError: it is not there, cannot be read, or is no model to chat with.
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


def _variant(
    headers: Sequence[GGUFHeader],
    source: str,
    label: str,
    first_file: tuple[str, int],
    size: int,
    path: Path,
    folder: object = None,
) -> FileVariant:
    """Return what the headers of a file, or of all its shards, say as a model in one quantization.

    Args:
        headers: of all its files.
        source: the repository or folder, to be shown.
        label: the name to be typed.
        first_file: name of the first file, and how many shards there are.
        size: bytes of all files.
        path: the file, or a skeleton of it, for dry runs.
        folder: is kept as long as the variant.
    """
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
    from hermes_cli.store import hub  # noqa: PLC0415 - HTTP

    listing = hub.list_gguf_files(name.repo)
    files = {file.path: file for file in listing.files}
    chosen, label = _chosen(name, {path: file.bytes for path, file in files.items()}, room)
    size = sum(files[path].bytes for path in chosen)
    if joined_name(chosen[0]) != chosen[0]:  # raw parts: the first has the header of the whole
        chosen = chosen[:1]
        files[chosen[0]] = HubFile(path=chosen[0], bytes=size)
    folder = tempfile.TemporaryDirectory(prefix="hermes-plan-")
    headers, skeletons = [], []
    for path in chosen:
        skeletons.append(Path(folder.name) / path.rpartition("/")[2])
        headers.append(hub.read_remote_header(name.repo, files[path], listing.revision, skeletons[-1])[0])
    return _variant(headers, name.repo, label, (chosen[0], len(chosen)), size, skeletons[0], folder)


def _chosen(name: HubReference, sizes: dict[str, int], room: int | None) -> tuple[tuple[str, ...], str]:
    """Return the files of the model that a name means, in order, and the name to type for it."""
    from hermes_cli.store.choose_files import choose_files  # noqa: PLC0415 - HTTP

    if name.file:
        group = next((group for group in group_files(sizes) if name.file in group), None)
        if group is None:
            raise NotFoundError(f"{name.repo} has no {name.file}.", hint=f"see what it has: hermes show {name.repo}")
        return group, f"{name.repo}/{group[0]}"
    choice = choose_files(name.repo, sizes, name.quantization, room)
    alone = sum(model.quantization == choice.quantization for model in models_in(sizes)[0]) == 1
    label = f"{name.repo}:{choice.quantization}" if choice.quantization and alone else f"{name.repo}/{choice.files[0]}"
    return choice.files, label
