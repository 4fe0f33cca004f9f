"""Input of the Responses API as messages of a chat.

Items are smaller than messages: reasoning, text and calls of one turn of the model are several of them. They become one
message again, so that the model is shown what it wrote.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.parts import part_text
from hermes_cli.server.openai.requests import MOST_MESSAGES
from hermes_cli.server.openai.response_tools import COMMAND, INPUT, LOCAL_SHELL, SHELL, ResponseTools
from hermes_cli.server.parsed_request import ChatMessages

Item = dict[str, Any]

_TEXT_PARTS = ("output_text", "input_text", "text", "refusal")
_KINDS = "there are message, reasoning, function_call, function_call_output and others."


def input_items(value: object, find: Callable[[str], Item | None]) -> list[Item]:
    """Return the input as items; those that are only named by their id are looked up with `find`."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list) or not 0 < len(value) <= MOST_MESSAGES:
        raise UsageError(f"must be a text, or a list of 1 to {MOST_MESSAGES:,} items.", field="input", hint=_KINDS)
    items: list[Item] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise UsageError("must be an object.", field=f"input[{index}]", hint=_KINDS)
        if _kind(item) == "item_reference":
            name = item.get("id")
            item = find(name) if isinstance(name, str) else None  # noqa: PLW2901 - in place of the reference
            if item is None:
                field = f"input[{index}].id"
                raise UsageError("is of no item that is kept here.", field=field, hint="send the item itself.")
        items.append(item)
    return items


def _kind(item: Item) -> object:
    """Return the type of an item; messages and references may leave it out."""
    if item.get("type") is not None:
        return item["type"]
    return "message" if "role" in item else "item_reference" if "id" in item else None


class ResponseMessages(ChatMessages):
    """Messages of a chat, made of items."""

    def __init__(self, instructions: str | None, tools: ResponseTools) -> None:
        super().__init__()
        self._tools = tools
        self.paths["messages"] = "input"
        self._turn: dict[str, Any] | None = None  # of the model, while items are added to it
        self._thoughts: list[str] = []  # of this turn
        self._texts: list[str] = []  # the same
        self._last: object = None  # type of the item before
        if instructions is not None:
            self.append({"role": "system", "content": instructions}, "instructions")

    def add(self, item: Item, path: str) -> None:
        """Add an item that came from a path in the request."""
        kind = _kind(item)
        if kind == "message":
            self._add_message(item, path)
        elif kind == "reasoning":
            self._model_turn(path)
            self._thoughts.append(_reasoning_text(item))
        elif not isinstance(kind, str):
            raise UsageError("has no type, which is not supported.", field=path, hint=_KINDS)
        elif kind in _CALLS:
            name, arguments = _CALLS[kind](item)
            function = {"name": self._tools.name_of(name, item.get("namespace")), "arguments": arguments}
            calls = self._model_turn(path).setdefault("tool_calls", [])
            self.paths[f"{self.here}.tool_calls[{len(calls)}]"] = path
            calls.append({"id": _call_id(item), "type": "function", "function": function})
        elif kind in _OUTPUTS:
            self.finish()
            call_path = f"{path}.call_id"
            message = {"role": "tool", "tool_call_id": _call_id(item), "content": item.get("output")}
            self.append(message, path, tool_call_id=call_path, content=f"{path}.output")
        elif (line := part_text(item)) != f"[{kind}]":  # of a tool that another server ran
            self._model_turn(path)
            self._texts.append(f"\n{line}" if self._texts else line)
        self._last = kind

    def _add_message(self, item: Item, path: str) -> None:
        if item.get("role") != "assistant":
            self.finish()
            self.append({"role": item.get("role"), "content": item.get("content")}, path)
            return
        content = _joined(item.get("content"))
        turn = self._model_turn(path)
        if self._last == "message" and (self._texts or turn["content"] is not None):  # two in a row are two turns
            self.finish()
            turn = self._model_turn(path)
        if isinstance(content, str):
            self._texts.append(content)
        else:
            turn["content"], self._texts = content, []
        self.paths[f"{self.here}.content"] = f"{path}.content"

    def _model_turn(self, path: str) -> dict[str, Any]:
        """Return the turn of the model at hand, or a new one."""
        if self._turn is None:
            self._turn = {"role": "assistant", "content": None}
            self.append(self._turn, path)
        return self._turn

    def finish(self) -> None:
        """End the turn of the model, if there is one."""
        if self._turn and self._texts:
            self._turn["content"] = "".join(self._texts)
        if self._turn and self._thoughts:
            self._turn["reasoning_content"] = "\n\n".join(filter(None, self._thoughts))
        self._turn, self._texts, self._thoughts = None, [], []


def _joined(content: object) -> object:
    """Join parts of text; leave anything else as it is, for prompting to refuse."""
    if not isinstance(content, list):
        return content
    texts = [
        part.get("refusal") if part.get("type") == "refusal" else part.get("text")
        for part in content
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS
    ]
    whole = [text for text in texts if isinstance(text, str)]
    return "".join(whole) if len(whole) == len(content) else content


def _reasoning_text(item: Item) -> str:
    """Return the reasoning itself if it is there, else its summary."""
    return part_text(item.get("content")) or part_text(item.get("summary"))


def _call_id(item: Item) -> object:
    return item.get("call_id") or item.get("id")


def _shell_command(item: Item) -> str:
    """Return the command of a call as the model wrote it."""
    action = item.get("action")
    words = action.get("command") if isinstance(action, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return part_text(action)
    return words[2] if words[:2] == [*SHELL] and len(words) == len(SHELL) + 1 else shlex.join(words)


_CALLS: dict[str, Callable[[Item], tuple[object, object]]] = {
    "function_call": lambda item: (item.get("name"), item.get("arguments")),
    "custom_tool_call": lambda item: (item.get("name"), {INPUT: item.get("input")}),
    "local_shell_call": lambda item: (LOCAL_SHELL, {COMMAND: _shell_command(item)}),
}
_OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")
