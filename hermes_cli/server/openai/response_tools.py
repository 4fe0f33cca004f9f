"""Tools of the Responses API as functions, and what a call of such a function was for its client.

`custom` and `local_shell` take one text, a `namespace` is a folder of functions. Tools that OpenAI would run itself are
left out, since clients like Codex always offer them; they are refused where `tool_choice` insists on one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from hermes_cli.errors import UsageError

INPUT, COMMAND = "input", "command"  # the only arguments of functions that stand for `custom` and `local_shell`
LOCAL_SHELL = "local_shell"
SHELL = ("bash", "-lc")  # what runs the command of a local shell
_SHELL = "Run a command in a shell on the user's machine; the result is what it prints."
_HINT = "choose a function that is offered, or leave tool_choice out."


@dataclass(frozen=True)
class ClientTool:
    """A tool as its client knows it."""

    kind: str  # `function`, `custom` or `local_shell`
    name: str
    namespace: str | None = None


class ResponseTools:
    """The tools of one request."""

    def __init__(self, tools: Sequence[Any], items: Sequence[Mapping[str, Any]] = ()) -> None:
        """Read the tools of a request, and those that items of its input bring, as Codex sends some."""
        # offered to the model, in OpenAI's flat shape; all else that was sent is among them as it was
        self.functions: list[Any] = []
        self.paths: dict[str, str] = {}  # where each stood in the request, by its path in a chat request
        self.notes: list[str] = []  # sentences about what is left out, or told to the model only
        self._known: dict[str, ClientTool] = {}  # by the name that the model reads
        self._offered: dict[tuple[object, object], str] = {}  # the same by the client's name and namespace
        self._left_out: set[str] = set()  # types
        listed = list(_flat("tools", tools))
        for index, item in enumerate(items):
            if (
                isinstance(item, dict)
                and item.get("type") == "additional_tools"
                and isinstance(item.get("tools"), list)
            ):
                listed += _flat(f"input[{index}].tools", item["tools"])
        count = Counter(str(tool.get("name")) for _, tool, _ in listed if isinstance(tool, dict))
        for path, tool, namespace in listed:
            function = self._function(tool, path)
            if function is None:
                continue
            name = function.get("name") if isinstance(function, dict) else None
            if isinstance(name, str):
                kind = tool["type"] if tool.get("type") in ("custom", LOCAL_SHELL) else "function"
                offered = f"{namespace}.{name}" if namespace and count[name] > 1 else name
                self._known[offered] = ClientTool(kind, name, namespace)
                self._offered.setdefault((name, namespace), offered)
                function = {**function, "name": offered}
            self.paths[f"tools[{len(self.functions)}]"] = path
            self.functions.append(function)

    def client_tool(self, name: str) -> ClientTool:
        """Return the tool that the model calls by a name."""
        return self._known.get(name) or ClientTool("function", name)

    def name_of(self, name: object, namespace: object = None) -> object:
        """Return the name by which the model knows a tool of the client."""
        return self._offered.get((name, namespace), name) if isinstance(name, str) else name

    def choice(self, choice: Any) -> Any:  # noqa: ANN401 - as it was sent
        """Return `tool_choice` for the functions; raise UsageError if it insists on a tool that is left out."""
        if not isinstance(choice, dict):
            return choice
        if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
            tools = [tool for tool in choice["tools"] if not self._is_left_out(tool)]
            return {**choice, "tools": [self._chosen(tool) for tool in tools or choice["tools"]]}
        if self._is_left_out(choice):
            reason = f"is {str(choice['type'])[:60]}, and such tools are not run here."
            raise UsageError(reason, field="tool_choice.type", hint=_HINT)
        return self._chosen(choice)

    def _is_left_out(self, tool: Any) -> bool:  # noqa: ANN401 - as it was sent
        return isinstance(tool, dict) and isinstance(kind := tool.get("type"), str) and kind in self._left_out

    def _chosen(self, tool: Any) -> Any:  # noqa: ANN401 - as it was sent
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == LOCAL_SHELL:
            return {"type": "function", "name": LOCAL_SHELL}
        if kind in ("function", "custom"):
            return {"type": "function", "name": self.name_of(tool.get("name"), tool.get("namespace"))}
        return tool

    def _function(self, tool: Any, path: str) -> Any:  # noqa: ANN401 - as it was sent
        """Return a tool as a function, None if it is left out; what is no tool at all is refused later."""
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind == "function":
            return tool
        if kind == LOCAL_SHELL:
            return _text_function(LOCAL_SHELL, _SHELL, COMMAND)
        if kind != "custom":
            self._left_out.add(kind)
            self.notes.append(f"{path} is left out: tools of type {kind[:60]} are not run here.")
            return None
        description, form = tool.get("description"), tool.get("format")
        if isinstance(form, dict) and isinstance(form.get("definition"), str):
            self.notes.append(f"{path}.format is told to the model, and not enforced.")
            grammar = f"The input has to follow this grammar ({form.get('syntax')}):\n{form['definition']}"
            description = f"{description}\n\n{grammar}" if isinstance(description, str) else grammar
        return _text_function(tool.get("name"), description, INPUT)


def _flat(where: str, tools: Sequence[Any]) -> Iterator[tuple[str, Any, str | None]]:
    """Yield all tools, those of a namespace one by one, with their path and the name of their namespace."""
    for index, tool in enumerate(tools):
        path = f"{where}[{index}]"
        if isinstance(tool, dict) and tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            for number, inner in enumerate(tool["tools"]):
                yield f"{path}.tools[{number}]", inner, str(tool.get("name") or "")
        else:
            yield path, tool, None


def _text_function(name: object, description: object, argument: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


def only_text(arguments: str, argument: str) -> str:
    """Return the only argument of such a function, as far as it was written."""
    try:
        value = from_json(arguments or "{}", allow_partial="trailing-strings").get(argument)
    except (ValueError, AttributeError):
        return arguments
    return value if isinstance(value, str) else ""
