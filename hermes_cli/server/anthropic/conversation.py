"""Anthropic's messages as those of a chat: blocks become content, reasoning, calls and their results.

Hints for Anthropic's cache (`cache_control`) and its signatures say nothing to a model here, and are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS = "there are text, thinking, tool_use and tool_result; these models read only text."
# Claude Code writes this line into its system prompt, with a number that is another one each time: nothing behind it
# could be reused from the request before. It says nothing to a model (anthropics/claude-code issue 24168).
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")

Block = dict[str, Any]


class Conversation:
    """Messages as chats have them, and where each part of them came from."""

    def __init__(self, system: object, messages: Sequence[object]) -> None:
        """Read all of them.

        Raises:
            UsageError: a message or a block is not understood here.
        """
        self.messages: list[dict[str, Any]] = []
        self.places: dict[str, str] = {}
        if system is not None:
            self._append({"role": "system", "content": _unbilled(system)}, "system")
            self.places[f"{self._here}.content"] = "system"
        for index, message in enumerate(messages):
            self._message(message, f"messages[{index}]")
        if self.messages and self.messages[-1]["role"] == "assistant":
            raise UsageError(
                "is of the assistant, and answers cannot be begun for the model.",
                field=f"messages[{len(messages) - 1}]",
                hint="end with a message of the user.",
            )

    def _message(self, message: object, place: str) -> None:
        if not isinstance(message, dict):
            raise UsageError(
                "must be an object.", field=place, hint='write it like this: {"role": "user", "content": "Hi"}.'
            )
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise UsageError(
                "must be user, assistant or system.", field=f"{place}.role", hint="system has a field of its own."
            )
        if not isinstance(content, list):
            self._append({"role": role, "content": content}, place)
        elif role == "assistant":
            self._answer(content, place)
        else:
            self._said(role, content, place)

    def _said(self, role: str, content: list[Any], place: str) -> None:
        """Results of tools first, since they belong to the turn before; then the rest."""
        rest: list[tuple[int, object]] = []
        for index, one in enumerate(content):
            if _kind(one) == "tool_result":
                self._result(one, f"{place}.content[{index}]")
            else:
                rest.append((index, one))
        if rest or not content:
            self._append({"role": role, "content": [one for _, one in rest]}, place)
            for at, (index, _) in enumerate(rest):
                self.places[f"{self._here}.content[{at}]"] = f"{place}.content[{index}]"

    def _result(self, block: Block, place: str) -> None:
        content = block.get("content")
        if block.get("is_error") is True and not content:
            content = "error"  # an empty text would look like success
        self._append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}, place)
        self.places[f"{self._here}.tool_call_id"] = f"{place}.tool_use_id"

    def _answer(self, content: list[Any], place: str) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        self._append(message, place)
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for index, block in enumerate(content):
            where, kind = f"{place}.content[{index}]", _kind(block)
            if kind == "text":
                texts.append(_text(block, "text", where))
            elif kind == "thinking":
                thoughts.append(_text(block, "thinking", where))
            elif kind == "tool_use":
                self._call(block, where, calls)
            elif kind != "redacted_thinking":
                raise UsageError(f"is a block {_named(kind)}.", field=where, hint=_BLOCKS)
        message |= {"content": "".join(texts) or None, "reasoning_content": "\n\n".join(filter(None, thoughts))}
        if calls:
            message["tool_calls"] = calls

    def _call(self, block: Block, where: str, calls: list[dict[str, Any]]) -> None:
        here = f"{self._here}.tool_calls[{len(calls)}]"
        self.places |= {here: where, f"{here}.arguments": f"{where}.input"}
        function = {"name": block.get("name"), "arguments": block.get("input")}
        calls.append({"id": block.get("id"), "type": "function", "function": function})

    def _append(self, message: dict[str, Any], place: str) -> None:
        self.messages.append(message)
        self.places[self._here] = place

    @property
    def _here(self) -> str:
        return f"messages[{len(self.messages) - 1}]"


def _kind(block: object) -> object:
    return block.get("type") if isinstance(block, dict) else None


def _named(kind: object) -> str:
    return f"of type {kind[:60]}, which is not supported" if isinstance(kind, str) else "without a type"


def _text(block: Block, name: str, where: str) -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise UsageError("must be a text.", field=f"{where}.{name}", hint="send the block as it was given.")
    return text


def _unbilled(system: object) -> object:
    """Without what is another one in each request."""
    if isinstance(system, str):
        return _BILLING.sub("", system, count=1) if system.startswith("x-anthropic-") else system
    if not isinstance(system, list):
        return system
    return [one for one in system if not (_kind(one) == "text" and _is_billing(one.get("text")))]


def _is_billing(text: object) -> bool:
    return isinstance(text, str) and _BILLING.fullmatch(text) is not None
