"""Faults of a catalogue file, by line: first of its form, then of the rules that its content must keep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from hermes_cli.catalog.load import yaml_loader
from hermes_cli.catalog.models import Architecture, CatalogEntry, CatalogModel, Catalogue, model_tensors
from hermes_cli.catalog.names import spellings
from hermes_cli.catalog.variants import variants
from hermes_cli.errors import did_you_mean

Path = tuple[str | int, ...]
Fault = tuple[Path, str]

EXACT = 0.001  # how far a computed size may be from a stated one
ROUNDED = 0.01  # and from one that a listing rounds to two or three digits


class CatalogueFault(NamedTuple):
    """One mistake: the line it is on (from 1), where in the file, and what is wrong."""

    line: int
    place: str
    message: str


def find_faults(text: str) -> list[CatalogueFault]:
    """Return all faults, in the order of lines. Rules are checked only where the form is right."""
    try:
        node = yaml.compose(text, Loader=yaml_loader())
        if node is None:
            return [CatalogueFault(1, "", "the file is empty")]
        value = yaml.load(text, Loader=yaml_loader())  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return [CatalogueFault(line, "", f"not YAML: {error.problem or error.context}")]
    except yaml.YAMLError as error:
        return [CatalogueFault(1, "", f"not YAML: {error}")]
    lines: dict[Path, int] = {}
    faults = [*_repeated_keys(node, (), lines), *_malformed(value, Catalogue, ())]
    if not faults:
        faults = list(broken_rules(msgspec.convert(value, Catalogue)))
    return sorted(CatalogueFault(_line(lines, path), _spelled(path, value), message) for path, message in faults)


def _repeated_keys(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Iterator[Fault]:
    """Yield keys that occur twice in a mapping, where YAML would silently take the last; put each place's line down."""
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_keys(item, (*path, index), lines)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            place = (*path, key.value)
            yield from _repeated_keys(value, place, lines)
            lines[place] = key.start_mark.line + 1
            if key.value in seen:
                yield place, f"the key {key.value} occurs twice"
            seen.add(key.value)


def _line(lines: dict[Path, int], path: Path) -> int:
    """Return the line of a place, or of the nearest one around it."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _spelled(path: Path, value: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    """Return a place in words: list items that have an id are called by it."""
    words = []
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
        name = value.get("id") or value.get("repo") if isinstance(value, dict) else None
        words.append(str(name or step) if isinstance(step, int) else step)
    return ".".join(words)


def _malformed(value: Any, expected: Any, path: Path) -> Iterator[Fault]:  # noqa: ANN401 - types as values
    """Yield wrong types, missing and unknown keys: one fault for each, as deep as the structure goes."""
    plain = get_args(expected)[0] if get_origin(expected) is Annotated else expected
    origin, arguments = get_origin(plain), get_args(plain)
    options = arguments if origin in {Union, UnionType} else (expected,)
    struct = next((kind for kind in options if isinstance(kind, type) and issubclass(kind, CatalogEntry)), None)
    if struct is not None and isinstance(value, dict):
        yield from _malformed_struct(value, struct, path)
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _malformed(item, arguments[1], (*path, key))
    elif origin is tuple and arguments[1:] == (Ellipsis,) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _malformed(item, arguments[0], (*path, index))
    else:
        try:
            msgspec.convert(value, expected)
        except msgspec.ValidationError as error:
            yield path, str(error)


def _malformed_struct(value: dict[str, Any], struct: type[CatalogEntry], path: Path) -> Iterator[Fault]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        if field.required and field.name not in value:
            yield path, f"the key {field.name} is missing"
    for key, item in value.items():
        if key in hints:
            yield from _malformed(item, hints[key], (*path, key))
        else:
            hint = did_you_mean(str(key), hints, f"known keys: {', '.join(hints)}")
            yield (*path, key), f"the key {key} is unknown; {hint}"


def broken_rules(catalogue: Catalogue) -> Iterator[Fault]:
    """Yield the faults of a catalogue whose form is right."""
    for name, entry in catalogue.quantizations.items():
        if entry.same_as and entry.same_as not in catalogue.quantizations:
            yield ("quantizations", name), f"there is no quantization {entry.same_as}"
    owners: dict[str, str] = {}  # no name may stand for two models once case and punctuation are gone
    for index, model in enumerate(catalogue.models):
        for spelling, written in spellings(model).items():
            owner = owners.setdefault(spelling, model.id)
            if owner != model.id:
                yield ("models", index), f"the name {written} already belongs to {owner}"
        files = chain(_files(catalogue, model), _sizes(model))
        for place, message in chain(_sources(catalogue, model), _architecture(model), _context(model), files):
            yield ("models", index, *place), message


def _sources(catalogue: Catalogue, model: CatalogModel) -> Iterator[Fault]:
    for what, keys in model.sources.items():
        for key in keys:
            if key not in catalogue.sources:
                yield ("sources", what), f"there is no source {key}"
        if what not in model.__struct_fields__:
            yield ("sources", what), f"{what} is not a key of a model"


def _architecture(model: CatalogModel) -> Iterator[Fault]:
    a = model.architecture
    if a.heads % a.kv_heads:
        yield ("architecture", "kv_heads"), f"{a.kv_heads} KV heads do not divide {a.heads} heads"
    if bool(a.experts) != bool(a.experts_used) or a.experts_used > a.experts:
        yield ("architecture", "experts"), f"{a.experts_used} of {a.experts} experts cannot be used"
    for field in a.unconfirmed:
        if field not in Architecture.__struct_fields__:
            yield ("architecture", "unconfirmed"), f"{field} is not a key of an architecture"
    counted = sum(math.prod(tensor.shape) for tensor in model_tensors(a) if tensor.name != "rope_freqs.weight")
    if model.parameters != counted:
        yield ("parameters",), f"the architecture has {counted:,} parameters, not {model.parameters:,}"


def _context(model: CatalogModel) -> Iterator[Fault]:
    context = model.context
    if context.usable > context.trained:
        yield ("context", "usable"), f"{context.usable:,} is more than the trained {context.trained:,} tokens"
    if context.yarn and round(context.yarn.original * context.yarn.factor) != context.yarn.context:
        yield ("context", "yarn"), "original times factor is not context"


def _files(catalogue: Catalogue, model: CatalogModel) -> Iterator[Fault]:
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


def _sizes(model: CatalogModel) -> Iterator[Fault]:
    """A stated size must be near the computed one, unless an older llama.cpp made the file."""
    for variant in variants(model):
        entry, computed = variant.entry, variant.computed_bytes
        if not computed or entry.old_mix:
            continue
        place = ("gguf", model.gguf.index(variant.repository), "quantizations", variant.quantization)
        if entry.bytes and abs(entry.bytes - computed) > EXACT * computed:
            yield place, f"{entry.bytes:,} bytes, but llama.cpp's rules give {computed:,}"
        if entry.listed_gb and abs(entry.listed_gb * 1e9 - computed) > ROUNDED * computed:
            yield place, f"{entry.listed_gb} GB, but llama.cpp's rules give {computed / 1e9:.2f} GB"
