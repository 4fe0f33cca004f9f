"""Anthropic's messages as those of a chat: blocks become content, reasoning, calls and their results.

Hints for Anthropic's cache (`cache_control`) and signatures mean nothing here, and are left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCKS = "there are text, thinking, tool_use and tool_result; these models read only text."
# Claude Code writes this line into its system prompt, with a number that is another one each time: nothing behind it
# could be reused from the request before. It means nothing to a model (anthropics/claude-code issue 24168).
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")

Block = dict[str, Any]


class ChatMessages:
    """Messages of a chat, and the paths that their parts had in the request."""

    def __init__(self, system: object, messages: Sequence[object]) -> None:
        """Translate all messages.

        Raises:
            UsageError: a message or a block is not supported.
        """
        self.messages: list[dict[str, Any]] = []
        self.paths: dict[str, str] = {}
        if system is not None:
            self._append({"role": "system", "content": _without_billing(system)}, "system")
            self.paths[f"{self._here}.content"] = "system"
        for index, message in enumerate(messages):
            self._message(message, f"messages[{index}]")
        if self.messages and self.messages[-1]["role"] == "assistant":
            raise UsageError(
                "is of the assistant, and answers cannot be begun for the model.",
                field=f"messages[{len(messages) - 1}]",
                hint="end with a message of the user.",
            )

    def _message(self, message: object, path: str) -> None:
        if not isinstance(message, dict):
            raise UsageError(
                "must be an object.", field=path, hint='write it like this: {"role": "user", "content": "Hi"}.'
            )
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise UsageError(
                "must be user, assistant or system.", field=f"{path}.role", hint="system has a field of its own."
            )
        if not isinstance(content, list):
            self._append({"role": role, "content": content}, path)
        elif role == "assistant":
            self._answer(content, path)
        else:
            self._results_and_content(role, content, path)

    def _results_and_content(self, role: str, content: list[Any], path: str) -> None:
        """Add results of tools first, since they belong to the turn before; then the rest."""
        rest: list[tuple[int, object]] = []
        for index, block in enumerate(content):
            if _kind(block) == "tool_result":
                self._result(block, f"{path}.content[{index}]")
            else:
                rest.append((index, block))
        if rest or not content:
            self._append({"role": role, "content": [block for _, block in rest]}, path)
            for at, (index, _) in enumerate(rest):
                self.paths[f"{self._here}.content[{at}]"] = f"{path}.content[{index}]"

    def _result(self, block: Block, path: str) -> None:
        content = block.get("content")
        if block.get("is_error") is True and not content:
            content = "error"  # an empty text would look like success
        self._append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}, path)
        self.paths[f"{self._here}.tool_call_id"] = f"{path}.tool_use_id"

    def _answer(self, content: list[Any], path: str) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        self._append(message, path)
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for index, block in enumerate(content):
            where, kind = f"{path}.content[{index}]", _kind(block)
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
        self.paths |= {here: where, f"{here}.arguments": f"{where}.input"}
        function = {"name": block.get("name"), "arguments": block.get("input")}
        calls.append({"id": block.get("id"), "type": "function", "function": function})

    def _append(self, message: dict[str, Any], path: str) -> None:
        self.messages.append(message)
        self.paths[self._here] = path

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


def _without_billing(system: object) -> object:
    """Leave out what differs in each request."""
    if isinstance(system, str):
        return _BILLING.sub("", system, count=1) if system.startswith("x-anthropic-") else system
    if not isinstance(system, list):
        return system
    return [block for block in system if not (_kind(block) == "text" and _is_billing(block.get("text")))]


def _is_billing(text: object) -> bool:
    return isinstance(text, str) and _BILLING.fullmatch(text) is not None
