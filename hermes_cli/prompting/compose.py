"""Conversations as the turns that a model reads: what stands in each, not yet how turns are set apart.

Calls, results and reasoning become text here, so that our templates are left with the markup alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hermes_cli.prompting.declarations import declaration
from hermes_cli.prompting.prompt_texts import THINKING_PROMPT, canonical, json_prompt, tools_prompt_3, tools_prompt_4
from hermes_cli.prompting.raw_turn_cache import RawTurnCache
from hermes_cli.prompting.text import SourcedText, joined, with_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hermes_cli.prompting.families import Family
    from hermes_cli.prompting.messages import Message, ToolCall

_THINK, _END_THINK = "<think>", "</think>"
# What Hermes 4's template leaves of a thought in an earlier turn, while thinking is on.
_THOUGHT_CUT = "<think> </think>"


@dataclass(frozen=True)
class PromptOptions:
    """How a conversation is to be answered.

    Attributes:
        think: whether the model is to reason before it answers; None leaves it as the model is by itself.
        keep_reasoning: earlier turns keep their reasoning; models were trained without it.
        schema: the JSON schema of the answer, or True for any JSON object.
    """

    think: bool | None = None
    keep_reasoning: bool = False
    schema: Mapping[str, Any] | bool = False


@dataclass(frozen=True)
class Conversation:
    """A conversation, the tools on offer, and what the model wrote in earlier turns."""

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]] = ()
    wishes: PromptOptions = field(default_factory=PromptOptions)
    memory: RawTurnCache = field(default_factory=lambda: RawTurnCache(0))

    @property
    def thinks(self) -> bool:
        """Whether thinking is on: asked for, or by a system message that has the words for it."""
        asked = self.wishes.think
        return THINKING_PROMPT in (self.system or "") if asked is None else asked

    @property
    def system(self) -> str | None:
        """The system message that the conversation begins with."""
        first = self.messages[0] if self.messages else None
        return (first.content or "") if first and first.role == "system" else None

    @property
    def rest(self) -> Sequence[Message]:
        """The messages behind it."""
        return self.messages if self.system is None else self.messages[1:]


def system_prompt(request: Conversation, *, thinking: bool) -> SourcedText | None:
    """The words that switch on what is wished for, and then the system message; None if there is nothing to say.

    Args:
        request: what is asked.
        thinking: whether the words for thinking are needed.
    """
    own, schema = request.system, request.wishes.schema
    parts: list[str] = []
    if thinking and THINKING_PROMPT not in (own or ""):
        parts.append(THINKING_PROMPT)
    if schema is not False:
        parts.append(json_prompt(None if isinstance(schema, bool) else schema))
    if own is not None:
        parts.append(with_tags(own))
    return paragraphs(parts) if parts else None


def paragraphs(parts: Iterable[str]) -> SourcedText:
    """Parts with an empty line between them."""
    spaced = [piece for part in parts for piece in ("\n\n", part)]
    return joined(spaced[1:])


def turns(request: Conversation, family: Family) -> list[dict[str, Any]]:
    """Every turn with its role and text, in the words that a family of models was trained on."""
    written = _system_turns(request, family)
    results: list[Message] = []
    for message in request.rest:
        if message.role == "tool":
            results.append(message)
            continue
        written += _results(results, family)
        results = []
        written.append({"role": message.role, "content": _said(message, request, family)})
    return written + _results(results, family)


def _system_turns(request: Conversation, family: Family) -> list[dict[str, Any]]:
    said = system_prompt(request, thinking=request.thinks and family.reasoning is not None)
    if said is None and family.identity and not (request.tools and family.tools == 3):  # noqa: PLR2004 - Hermes 3
        said = joined((family.identity,))
    if not request.tools or family.tools is None:
        return [] if said is None else [{"role": "system", "content": said}]
    if family.tools == 3:  # noqa: PLR2004 - Hermes 3: tools have a turn of their own
        offered = tools_prompt_3([declaration(tool) for tool in request.tools])
        more = [] if said is None else [{"role": "system", "content": said}]
        return [{"role": "system", "content": offered}, *more]
    # With tools, Hermes 4's template in Llama 3 markup has one line break behind this header, not two.
    return [{"role": "system", "content": paragraphs((said or "", tools_prompt_4(request.tools))), "gap": "\n"}]


def _results(results: Sequence[Message], family: Family) -> list[dict[str, Any]]:
    """All results of one batch are one turn."""
    if not results:
        return []
    blocks = [joined(("<tool_response>\n", SourcedText(one.content or ""), "\n</tool_response>")) for one in results]
    text = joined(piece for block in blocks for piece in ("\n", block))[1:]
    if family.tools == 4:  # noqa: PLR2004 - Hermes 4
        return [{"role": "user", "content": text}]
    # The template of Hermes 2 Pro and 3 leaves the last line break out while this is the last turn, and writes it once
    # it is not. It is always here: so it is in training, and what was read once need not be read again.
    return [{"role": "tool", "content": text + "\n"}]


def _said(message: Message, request: Conversation, family: Family) -> SourcedText:
    if message.role == "assistant":
        cut = family.reasoning == "thinking" and request.thinks
        return answer(message, request, cut=_THOUGHT_CUT if cut else "")
    return with_tags(message.content or "") if message.role == "system" else SourcedText(message.content or "")


def answer(message: Message, request: Conversation, *, cut: str = "") -> SourcedText:
    """A turn of the model, in its own letters where they are known.

    Args:
        message: the turn.
        request: says whether its reasoning stays, and remembers what the model wrote.
        cut: what to put where reasoning was taken out.
    """
    own = request.memory.recall(message)
    if request.wishes.keep_reasoning:
        if own is not None:
            return with_tags(own)
        cut = thought(message.reasoning) if message.reasoning else ""
    elif own is not None and own.lstrip().startswith(_THINK):
        _, closed, rest = own.partition(_END_THINK)
        if closed:
            return joined((cut, with_tags(rest))) if cut else with_tags(rest.lstrip())
        own = None  # the thought never ended; only what came of it is repeated
    body = with_calls(message) if own is None else with_tags(own)
    return joined((cut, "\n" if body else "", body)) if cut else body


def thought(reasoning: str | None) -> SourcedText:
    """Reasoning between its tags."""
    return joined((_THINK, "\n", SourcedText(reasoning or ""), "\n", _END_THINK))


def with_calls(message: Message) -> SourcedText:
    """Content, and the calls behind it."""
    content = [with_tags(message.content)] if message.content else []
    lines = [*content, *(_call(call) for call in message.tool_calls)]
    return joined(piece for line in lines for piece in ("\n", line))[1:]


def _call(call: ToolCall) -> SourcedText:
    if call.written is not None:
        return with_tags(call.written)
    inside = f'{{"name": {canonical(call.name)}, "arguments": {canonical(call.arguments)}}}'
    return joined(("<tool_call>\n", SourcedText(inside), "\n</tool_call>"))
