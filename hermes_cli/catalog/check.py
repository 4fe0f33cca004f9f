"""Every fault of a catalogue file, by line: for people who edit it."""

from __future__ import annotations

import difflib
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from hermes_cli.catalog.load import yaml_loader
from hermes_cli.catalog.models import CatalogEntry, Catalogue
from hermes_cli.catalog.rules import broken_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

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
