"""Tool declarations for Hermes 2 Pro and Hermes 3: JSON whose description begins with a Python signature.

The template `tool_use` writes this. Where it fails or writes nonsense (lists of anything, unions, missing words, quotes
that end the string) we write what was meant: the signature that Python would have, as in the training data. Otherwise
we write what it writes, also where that is odd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_cli.prompting.prompt_texts import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BASIC = {"string": "str", "number": "float", "integer": "int", "boolean": "bool", "null": "None"}
_ANY = "Any"
DEEPEST_TYPE = 8  # levels of a type that a signature spells out


def declaration(tool: Mapping[str, Any]) -> str:
    """A tool in OpenAI's shape, normalised, as one entry of `<tools>`."""
    function = tool["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    types = _Types(parameters)
    signature = ", ".join(f"{name}: {types.of(schema)}" for name, schema in properties.items())
    returned = function.get("return")
    text = f"{function['name']}({signature})"
    if returned is not None:
        text += f" -> {types.of(returned)}"
    text += f" - {function.get('description') or ''}\n\n"
    if properties:
        # One behind the other without a break: so the template writes them.
        text += "    Args:\n" + "".join(
            f"        {name}({types.of(schema)}): {_described(schema).strip()}" for name, schema in properties.items()
        )
    if _described(returned):
        text += f"\n    Returns:\n        {_described(returned)}"
    return (
        f'{{"type": "function", "function": {{"name": {canonical(function["name"])}, "description": "{_inside(text)}", '
        f'"parameters": {canonical(parameters) if properties else "{}"}}}'  # one brace too few, as in the template
    )


def _described(schema: object) -> str:
    text = schema.get("description") if isinstance(schema, dict) else None
    return text if isinstance(text, str) else ""


def _inside(text: str) -> str:
    """Within the quotes of a string. Line breaks stay as they are, as in the template."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


class _Types:
    """JSON schemas of one tool as Python types."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def of(self, schema: object, depth: int = 0) -> str:
        """`Any` for what says nothing about its type, and for what lies too deep to be read."""
        if not isinstance(schema, dict) or depth > DEEPEST_TYPE:
            return _ANY
        if isinstance(schema.get("$ref"), str):
            return self._referenced(schema["$ref"], depth)
        kind = schema.get("type")
        if isinstance(kind, str):
            return self._named(kind, schema, depth)
        if isinstance(kind, list):
            return _union(self.of({**schema, "type": option}, depth + 1) for option in _different(kind))
        return self._combined(schema, depth)

    def _combined(self, schema: Mapping[str, Any], depth: int) -> str:
        """A schema without a type of its own."""
        for word in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(word), list):
                types = list(dict.fromkeys(self.of(option, depth + 1) for option in schema[word]))
                return types[0] if word == "allOf" and len(types) == 1 else _union(types)
        return "dict" if "properties" in schema else _ANY

    def _referenced(self, reference: str, depth: int) -> str:
        if reference not in self._known:
            # While it is read: a type that contains itself is called by its name there.
            self._known[reference] = reference.rpartition("/")[2] or _ANY
            self._known[reference] = self.of(self._resolve(reference), depth + 1)
        return self._known[reference]

    def _named(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "array":
            items = schema.get("items")
            return f"list[{self.of(items, depth + 1)}]" if isinstance(items, dict) else "list"
        if kind == "object":
            values = schema.get("additionalProperties")
            return f"dict[str, {self.of(values, depth + 1)}]" if isinstance(values, dict) and values else "dict"
        return _BASIC.get(kind, _ANY)

    def _resolve(self, reference: str) -> object:
        """Return the schema that `#/$defs/Name` points to; None if there is none."""
        target: object = self._root
        for step in filter(None, reference.removeprefix("#").split("/")):
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target


def _union(types: Iterable[str]) -> str:
    return f"Union[{','.join(types)}]"


def _different(kinds: list[Any]) -> list[str]:
    return list(dict.fromkeys(kind for kind in kinds if isinstance(kind, str)))
