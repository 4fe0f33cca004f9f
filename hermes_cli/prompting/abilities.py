"""Abilities of a chat template, found out by rendering small conversations: its source says little for certain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_cli.prompting.template import ChatTemplate

# Words that no template writes by itself.
_SYSTEM, _ASKED, _SAID, _THOUGHT = "zq-system", "zq-asked", "zq-said", "zq-thought"
_NAME, _CALLED, _KEY, _RESULT = "zq_name", "zq_called", "zq_key", "zq-result"

_USER = {"role": "user", "content": _ASKED}
_INSTRUCTED = {"role": "system", "content": _SYSTEM}
_PARAMETERS = {"type": "object", "properties": {_KEY: {"type": "string", "description": "zq"}}}
_BARE_TOOL = {"type": "function", "function": {"name": _NAME}}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "zq", "parameters": _PARAMETERS}}


Form = Literal["objects", "text"]


@dataclass(frozen=True)
class Abilities:
    """Abilities of a template.

    Attributes:
        system: it writes system messages.
        tools: it writes tools, and "bare" ones without description and parameters.
        calls: it writes the calls of earlier turns, with their arguments given as objects or as JSON text.
        text_beside_calls: it writes what was said beside calls.
        thinking: what its switch for thinking changes: every prompt, only those without a system message, or none.
        needs_thought: with thinking on it fails on earlier turns that did not think.
        reads_reasoning: it writes `reasoning_content` of the turn before a tool's result.
    """

    system: bool = False
    tools: Literal["any", "bare"] | None = None
    calls: Form | None = None
    text_beside_calls: bool = False
    thinking: Literal["always", "alone"] | None = None
    needs_thought: bool = False
    reads_reasoning: bool = False


def examine(template: ChatTemplate, *, for_tools: bool = False) -> Abilities:
    """Try a template; one that is only `for_tools` is never tried without any."""
    tried = _Tried(template, (_TOOL,) if for_tools else ())
    forms: tuple[Form, ...] = ("objects", "text")
    calls = next((form for form in forms if _CALLED in tried.with_call(form)), None)
    last = tried.with_call(calls or "objects")
    return Abilities(
        system=_SYSTEM in tried.write([_INSTRUCTED, _USER]),
        tools=tried.tools(),
        calls=calls,
        text_beside_calls=_SAID in last,
        thinking=tried.thinking(),
        needs_thought=tried.needs_thought(),
        reads_reasoning=_THOUGHT in last,
    )


def switches(thinking: bool | None) -> dict[str, bool]:  # noqa: FBT001 - on, off or left alone
    """The variables that templates call their switch by: Hermes 4 and others."""
    return {} if thinking is None else {"thinking": thinking, "enable_thinking": thinking}


def arguments_as(form: str | None, arguments: Mapping[str, Any]) -> object:
    """Return arguments in the form that a template takes."""
    return json.dumps(arguments, ensure_ascii=False) if form == "text" else dict(arguments)


@dataclass(frozen=True)
class _Tried:
    """A template, and the tools that it is always given."""

    template: ChatTemplate
    offered: Sequence[dict[str, Any]]

    def write(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] = (),
        thinking: bool | None = None,
    ) -> str:
        """The prompt, or nothing if the template fails."""
        try:
            return self.template.write(messages, tools or self.offered, **switches(thinking))
        except HermesError:
            return ""

    def with_call(self, form: str) -> str:
        """Render a conversation that ends with the result of a call."""
        function = {"name": _CALLED, "arguments": arguments_as(form, {_KEY: "zq"})}
        answer = {
            "role": "assistant",
            "content": _SAID,
            "reasoning_content": _THOUGHT,
            "tool_calls": [{"id": "zq0000000", "type": "function", "function": function}],
        }
        result = {"role": "tool", "content": _RESULT, "tool_call_id": "zq0000000", "name": _CALLED}
        return self.write([_USER, answer, result])

    def tools(self) -> Literal["any", "bare"] | None:
        """Return which tools the template writes."""
        if _NAME in self.write([_USER], tools=[_BARE_TOOL]):
            return "bare"
        return "any" if _NAME in self.write([_USER], tools=[_TOOL]) else None

    def thinking(self) -> Literal["always", "alone"] | None:
        """Return the prompts that the switch for thinking changes."""
        if self._switches([_INSTRUCTED, _USER]):
            return "always"
        return "alone" if self._switches([_USER]) else None

    def needs_thought(self) -> bool:
        """Return whether the template fails on an earlier turn without a thought."""
        return not self._writes(_SAID) and self._writes(f"<think>\n{_THOUGHT}\n</think>\n{_SAID}")

    def _switches(self, messages: Sequence[dict[str, Any]]) -> bool:
        return self.write(messages, thinking=True) != self.write(messages, thinking=False)

    def _writes(self, answer: str) -> bool:
        messages = [_USER, {"role": "assistant", "content": answer}, _USER]
        return _SAID in self.write(messages, thinking=True)
