"""What must be true of a catalogue beyond its form. Each rule yields the places that break it."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import Architecture
from hermes_cli.catalog.names import spellings
from hermes_cli.catalog.tensors import model_tensors
from hermes_cli.catalog.variants import Variant, variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import CatalogModel, Catalogue

Broken = tuple[tuple[str | int, ...], str]

EXACT = 0.001  # how far a computed size may be from a stated one
ROUNDED = 0.01  # and from one that a listing rounds to two or three digits


def broken_rules(catalogue: Catalogue) -> Iterator[Broken]:
    """All of them."""
    yield from _quantizations(catalogue)
    yield from _names(catalogue)
    for index, model in enumerate(catalogue.models):
        rules = (_sources(catalogue, model), _architecture(model), _context(model), _files(catalogue, model))
        for place, message in chain(*rules):
            yield ("models", index, *place), message


def _quantizations(catalogue: Catalogue) -> Iterator[Broken]:
    for name, entry in catalogue.quantizations.items():
        if entry.same_as and entry.same_as not in catalogue.quantizations:
            yield ("quantizations", name), f"there is no quantization {entry.same_as}"


def _names(catalogue: Catalogue) -> Iterator[Broken]:
    """No name may stand for two models once case and punctuation are gone."""
    owners: dict[str, str] = {}
    for index, model in enumerate(catalogue.models):
        for spelling, written in spellings(model).items():
            owner = owners.setdefault(spelling, model.id)
            if owner != model.id:
                yield ("models", index), f"the name {written} already belongs to {owner}"


def _sources(catalogue: Catalogue, model: CatalogModel) -> Iterator[Broken]:
    for what, keys in model.sources.items():
        for key in keys:
            if key not in catalogue.sources:
                yield ("sources", what), f"there is no source {key}"
        if what not in model.__struct_fields__:
            yield ("sources", what), f"{what} is no key of a model"


def _architecture(model: CatalogModel) -> Iterator[Broken]:
    a = model.architecture
    if a.heads % a.kv_heads:
        yield ("architecture", "kv_heads"), f"{a.kv_heads} KV heads do not divide {a.heads} heads"
    if bool(a.experts) != bool(a.experts_used) or a.experts_used > a.experts:
        yield ("architecture", "experts"), f"{a.experts_used} of {a.experts} experts cannot be used"
    for field in a.unconfirmed:
        if field not in Architecture.__struct_fields__:
            yield ("architecture", "unconfirmed"), f"{field} is no key of an architecture"
    counted = sum(math.prod(tensor.shape) for tensor in model_tensors(a) if tensor.name != "rope_freqs.weight")
    if model.parameters != counted:
        yield ("parameters",), f"the architecture has {counted:,} parameters, not {model.parameters:,}"


def _context(model: CatalogModel) -> Iterator[Broken]:
    context = model.context
    if context.usable > context.trained:
        yield ("context", "usable"), f"{context.usable:,} is more than the trained {context.trained:,} tokens"
    if context.yarn and round(context.yarn.original * context.yarn.factor) != context.yarn.context:
        yield ("context", "yarn"), "original times factor is not context"


def _files(catalogue: Catalogue, model: CatalogModel) -> Iterator[Broken]:
    repos = [repository.repo for repository in model.gguf]
    for index, repository in enumerate(model.gguf):
        if repos.index(repository.repo) != index:
            yield ("gguf", index), f"the repository {repository.repo} is listed twice"
        for name, entry in repository.quantizations.items():
            place = ("gguf", index, "quantizations", name)
            if name not in catalogue.quantizations:
                yield place, f"there is no quantization {name}"
            if not (entry.file or repository.files):
                yield place, "no file name: give the repository a pattern under files, or this entry a file"
            if entry.shards and entry.parts:
                yield place, "a file is split in shards or in parts, not both"
    places = {repository.repo: index for index, repository in enumerate(model.gguf)}
    for variant in variants(model):
        place = ("gguf", places[variant.repository.repo], "quantizations", variant.quantization)
        yield from ((place, message) for message in _size(variant))


def _size(variant: Variant) -> Iterator[str]:
    """A stated size must be near the computed one, unless an older llama.cpp made the file."""
    entry, computed = variant.entry, variant.computed_bytes
    if not computed or entry.old_mix:
        return
    if entry.bytes and abs(entry.bytes - computed) > EXACT * computed:
        yield f"{entry.bytes:,} bytes, but llama.cpp's rules give {computed:,}"
    if entry.listed_gb and abs(entry.listed_gb * 1e9 - computed) > ROUNDED * computed:
        yield f"{entry.listed_gb} GB, but llama.cpp's rules give {computed / 1e9:.2f} GB"
