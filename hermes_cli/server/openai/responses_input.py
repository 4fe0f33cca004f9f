"""The input of a response as the messages of a chat.

Items are smaller than messages: what the model said in one turn, its reasoning, text and calls, are several of them.
They become one message again, so that the model is shown what it wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError
from hermes_cli.server.openai.schemas import MOST_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = dict[str, Any]

_TEXT_PARTS = ("output_text", "input_text", "text", "refusal")
_KINDS = "there are message, reasoning, function_call and function_call_output."


def items(given: object) -> list[Item]:
    """The input as items.

    Raises:
        UsageError: it is neither a text nor a list of objects.
    """
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if not isinstance(given, list) or not 0 < len(given) <= MOST_MESSAGES:
        raise UsageError(f"must be a text, or a list of 1 to {MOST_MESSAGES:,} items.", field="input", hint=_KINDS)
    for index, one in enumerate(given):
        if not isinstance(one, dict):
            raise UsageError("must be an object.", field=f"input[{index}]", hint=_KINDS)
    return given


def resolved(given: Iterable[Item], find: Callable[[str], Item | None]) -> list[Item]:
    """Items, with those that are only named by their id looked up.

    Raises:
        UsageError: there is none with such an id.
    """
    found: list[Item] = []
    for index, one in enumerate(given):
        if _kind(one) != "item_reference":
            found.append(one)
            continue
        name = one.get("id")
        item = find(name) if isinstance(name, str) else None
        if item is None:
            raise UsageError(
                "is of no item that is kept here.", field=f"input[{index}].id", hint="send the item itself."
            )
        found.append(item)
    return found


def _kind(item: Item) -> object:
    """A message need not say that it is one, nor a reference."""
    if item.get("type") is not None:
        return item["type"]
    return "message" if "role" in item else "item_reference" if "id" in item else None


class Conversation:
    """Messages as chats have them, and where each part of them came from."""

    def __init__(self, instructions: str | None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: dict[str, str] = {"messages": "input"}
        self._turn: dict[str, Any] | None = None  # of the model, as long as it goes on
        self._last: object = None  # the kind of the item before
        if instructions is not None:
            self._append({"role": "system", "content": instructions}, "instructions")

    def add(self, item: Item, place: str) -> None:
        """One more item.

        Raises:
            UsageError: it is of a kind that is not understood here, or not as it should be.
        """
        kind = _kind(item)
        if kind == "message":
            self._message(item, place)
        elif kind == "reasoning":
            self._reasoning(item, place)
        elif kind == "function_call":
            self._call(item, place)
        elif kind == "function_call_output":
            self._output(item, place)
        else:
            what = f"is of type {kind[:60]}" if isinstance(kind, str) else "has no type"
            raise UsageError(f"{what}, which is not supported.", field=place, hint=_KINDS)
        self._last = kind

    def _message(self, item: Item, place: str) -> None:
        if item.get("role") != "assistant":
            self._turn = None
            self._append({"role": item.get("role"), "content": item.get("content")}, place)
            return
        content = _joined(item.get("content"))
        turn = self._going_on(place)
        before = turn.get("content")
        if self._last == "message" and before is not None:  # two messages in a row are two turns
            self._turn = None
            turn = self._going_on(place)
        elif isinstance(before, str) and isinstance(content, str):
            content = before + content
        turn["content"] = content
        self.places[f"{self._here}.content"] = f"{place}.content"

    def _reasoning(self, item: Item, place: str) -> None:
        thought = _thought(item, place)
        turn = self._going_on(place)
        turn["reasoning_content"] = "\n\n".join(filter(None, (turn.get("reasoning_content"), thought)))

    def _call(self, item: Item, place: str) -> None:
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        calls = self._going_on(place).setdefault("tool_calls", [])
        self.places[f"{self._here}.tool_calls[{len(calls)}]"] = place
        calls.append({"id": item.get("call_id"), "type": "function", "function": function})

    def _output(self, item: Item, place: str) -> None:
        self._turn = None
        if not isinstance(item.get("call_id"), str):
            raise UsageError("must be a text.", field=f"{place}.call_id", hint="say which call this is the output of.")
        self._append({"role": "tool", "tool_call_id": item["call_id"], "content": item.get("output")}, place)
        self.places[f"{self._here}.tool_call_id"] = f"{place}.call_id"
        self.places[f"{self._here}.content"] = f"{place}.output"

    def _going_on(self, place: str) -> dict[str, Any]:
        """The turn of the model that goes on, or a new one."""
        if self._turn is None:
            self._turn = {"role": "assistant", "content": None}
            self._append(self._turn, place)
        return self._turn

    def _append(self, message: dict[str, Any], place: str) -> None:
        self.messages.append(message)
        self.places[self._here] = place

    @property
    def _here(self) -> str:
        return f"messages[{len(self.messages) - 1}]"


def _joined(content: object) -> object:
    """Parts of text as one; anything else as it is, for prompting to refuse."""
    if not isinstance(content, list):
        return content
    texts = [
        one.get("refusal") if one.get("type") == "refusal" else one.get("text")
        for one in content
        if isinstance(one, dict) and one.get("type") in _TEXT_PARTS
    ]
    whole = [text for text in texts if isinstance(text, str)]
    return "".join(whole) if len(whole) == len(content) else content


def _thought(item: Item, place: str) -> str:
    """The reasoning itself if it is there, else its summary."""
    for name in ("content", "summary"):
        parts = item.get(name) or []
        texts = [one.get("text") for one in parts if isinstance(one, dict)] if isinstance(parts, list) else [None]
        whole = [text for text in texts if isinstance(text, str)]
        if not isinstance(parts, list) or len(whole) != len(parts):
            raise UsageError(
                "must be a list of parts with a text.", field=f"{place}.{name}", hint="send it as it was given."
            )
        if whole:
            return "\n\n".join(whole)
    return ""
