"""Faults of a catalogue file, by line: first of its form, then of the rules that its content must keep."""

from __future__ import annotations

import difflib
import math
from itertools import chain
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from hermes_cli.catalog.load import yaml_loader
from hermes_cli.catalog.models import Architecture, CatalogEntry, Catalogue, model_tensors
from hermes_cli.catalog.names import spellings
from hermes_cli.catalog.variants import Variant, variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import CatalogModel

Path = tuple[str | int, ...]


class CatalogueFault(NamedTuple):
    """One mistake: the line it is on (from 1), where in the file, and what is wrong."""

    line: int
    place: str
    message: str


def find_faults(text: str) -> list[CatalogueFault]:
    """All faults, in the order of lines. Meaning is checked only where the form is right."""
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
    lines = dict(_lines(node, ()))
    found = [*_twice(node, ()), *_malformed(value, Catalogue, ())]
    if not found:
        found = list(broken_rules(msgspec.convert(value, Catalogue)))
    return sorted(CatalogueFault(_line(lines, path), _spelled(path, value), message) for path, message in found)


def _lines(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    """The line of every key and list item."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*path, key.value))
            yield (*path, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*path, index))


def _line(lines: dict[Path, int], path: Path) -> int:
    """The line of a place, or of the nearest one around it."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _spelled(path: Path, value: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    """A place in words: list items that have an id are called by it."""
    words = []
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
        name = value.get("id") or value.get("repo") if isinstance(value, dict) else None
        words.append(str(name or step) if isinstance(step, int) else step)
    return ".".join(words)


def _twice(node: yaml.Node, path: Path) -> Iterator[tuple[Path, str]]:
    """Keys that occur twice in one mapping; YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield (*path, key.value), f"the key {key.value} occurs twice"
            seen.add(key.value)
            yield from _twice(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _twice(item, (*path, index))


def _malformed(value: Any, expected: Any, path: Path) -> Iterator[tuple[Path, str]]:  # noqa: ANN401 - types as values
    """Wrong types, missing and unknown keys: one fault for each, as deep as the structure goes."""
    struct = _struct_in(expected)
    if struct is not None and isinstance(value, dict):
        yield from _malformed_struct(value, struct, path)
        return
    inner = _item_type(expected)
    if inner is not None and isinstance(value, (list, dict)) and isinstance(value, dict) == _is_dict(expected):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _malformed(item, inner, (*path, key))
        return
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        yield path, str(error)


def _malformed_struct(value: dict[str, Any], struct: type[CatalogEntry], path: Path) -> Iterator[tuple[Path, str]]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        if field.required and field.name not in value:
            yield path, f"the key {field.name} is missing"
    for key, item in value.items():
        if key in hints:
            yield from _malformed(item, hints[key], (*path, key))
        else:
            near = difflib.get_close_matches(str(key), hints, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(hints)}"
            yield (*path, key), f"the key {key} is unknown{meant}"


def _struct_in(expected: Any) -> type[CatalogEntry] | None:  # noqa: ANN401 - types as values
    """The struct that a type is, or is one alternative of."""
    options = get_args(expected) if get_origin(expected) in {Union, UnionType} else (expected,)
    return next((one for one in options if isinstance(one, type) and issubclass(one, CatalogEntry)), None)


def _item_type(expected: Any) -> Any:  # noqa: ANN401 - types as values
    """The type of a container's items, if it is a tuple of any length or a dictionary."""
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Annotated:
        return _item_type(arguments[0])
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return arguments[0]
    return arguments[1] if origin is dict else None


def _is_dict(expected: Any) -> bool:  # noqa: ANN401 - types as values
    return get_origin(expected) is dict


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
