"""Conversations as turns of text in the words that a family of models was trained on.

Calls, results and reasoning become text here; `families.write_turns` then sets the turns apart. Content is guarded
(markers.py), so that special tokens spelled in it stay text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from hermes_cli.prompting.families import THINKING_PROMPT, Family, canonical, declaration, json_prompt, tools_prompt
from hermes_cli.prompting.markers import SpecialTexts
from hermes_cli.prompting.messages import Message

_THINK, _END_THINK = "<think>", "</think>"
# Hermes 4's template leaves this of a thought in an earlier turn, while thinking is on.
_REMOVED_THOUGHT = "<think> </think>"


MOST_TURNS = 1000
MOST_CHARACTERS = 8_000_000


class RawTurnCache:
    """The latest turns with calls as the model wrote them, by the ids of their calls. Safe to share between threads.

    Clients send a conversation back in their own words: arguments parsed and written anew, white space gone. The model
    then reads another text than it wrote, and the KV cache of that turn is lost. So its own text is given back.
    """

    def __init__(self, turns: int = MOST_TURNS, characters: int = MOST_CHARACTERS) -> None:
        self._turns: OrderedDict[str, tuple[Message, str]] = OrderedDict()
        self._most_turns, self._most_characters = turns, characters
        self._characters = 0
        self._lock = Lock()

    def remember(self, message: Message, text: str) -> None:
        """Keep a turn, with all text that the model generated in it, but for the token that ended it.

        Turns without calls have no id and are not kept.
        """
        if not message.tool_calls or len(text) > self._most_characters:
            return
        with self._lock:
            self._forget(message.tool_calls[0].id)
            self._turns[message.tool_calls[0].id] = message, text
            self._characters += len(text)
            while len(self._turns) > self._most_turns or self._characters > self._most_characters:
                self._forget(next(iter(self._turns)))

    def recall(self, message: Message) -> str | None:
        """Return the turn as the model wrote it, None if that is not known or the client changed it."""
        if not message.tool_calls:
            return None
        with self._lock:
            known = self._turns.get(message.tool_calls[0].id)
            if known is None or not _same(known[0], message):
                return None
            self._turns.move_to_end(message.tool_calls[0].id)
            return known[1]

    def _forget(self, key: str) -> None:
        if key in self._turns:
            self._characters -= len(self._turns.pop(key)[1])


def _same(kept: Message, sent: Message) -> bool:
    """Return whether both have the same calls in the same order, and the same text beside them, or none."""
    calls, others = ([(call.id, call.name, call.arguments) for call in turn.tool_calls] for turn in (kept, sent))
    return calls == others and (sent.content or "").strip() in {"", (kept.content or "").strip()}


@dataclass(frozen=True)
class PromptOptions:
    """Options of a prompt."""

    think: bool | None = None  # reason before the answer, or don't; None leaves it to the model's default
    keep_reasoning: bool = False  # keep the reasoning of earlier turns; models were trained without it
    schema: Mapping[str, Any] | bool = False  # the JSON schema of the answer, or True for any JSON object
    generation_prompt: bool = True  # end with what begins the turn of the model


@dataclass(frozen=True)
class PromptInput:
    """Messages, the tools on offer, and the options of the prompt that is made of them."""

    messages: Sequence[Message]  # the system message first, if there is one
    tools: Sequence[dict[str, Any]] = ()  # in OpenAI's shape
    options: PromptOptions = field(default_factory=PromptOptions)  # of the prompt
    raw_turns: RawTurnCache = field(default_factory=lambda: RawTurnCache(0))  # what the model wrote in earlier turns
    specials: SpecialTexts = field(default_factory=SpecialTexts)  # special tokens, which content must not spell

    @property
    def thinks(self) -> bool:
        """Return whether thinking is on: asked for, or switched on by the words of the system message."""
        think = self.options.think
        return THINKING_PROMPT in (self.system or "") if think is None else think

    @property
    def system(self) -> str | None:
        """Return the system message that the conversation begins with."""
        first = self.messages[0] if self.messages else None
        return (first.content or "") if first and first.role == "system" else None

    @property
    def rest(self) -> Sequence[Message]:
        """Return the messages behind it."""
        return self.messages if self.system is None else self.messages[1:]

    def guarded(self, message: Message) -> str:
        """Return the content of a message, guarded; tags count in system prompts and in turns of the model."""
        return self.specials.guard(message.content or "", keep_tags=message.role in {"system", "assistant"})

    def tagged(self, text: str) -> str:
        """Guard text whose tags count: a system prompt, or a turn of the model."""
        return self.specials.guard(text, keep_tags=True)

    def json(self, value: object) -> str:
        """Guard a value as the models read JSON."""
        return self.specials.guard(canonical(value))


def system_prompt(conversation: PromptInput, *, thinking: bool) -> str | None:
    """Return the system message behind the words for thinking and JSON mode; None if all of them are missing."""
    own, schema = conversation.system, conversation.options.schema
    parts: list[str] = []
    if thinking and THINKING_PROMPT not in (own or ""):
        parts.append(THINKING_PROMPT)
    if schema is not False:
        parts.append(json_prompt(None if isinstance(schema, bool) else conversation.json(schema)))
    if own is not None:
        parts.append(conversation.tagged(own))
    return "\n\n".join(parts) if parts else None


def turns(conversation: PromptInput, family: Family) -> list[dict[str, str]]:
    """Return every turn with `role` and `content`, as `families.write_turns` takes them."""
    written = _system_turns(conversation, family)
    results: list[Message] = []
    for message in conversation.rest:
        if message.role == "tool":
            results.append(message)
            continue
        written += _result_turns(results, conversation, family)
        results = []
        if message.role == "assistant":
            removed = family.reasoning == "thinking" and conversation.thinks
            text = assistant_text(message, conversation, removed_thought=_REMOVED_THOUGHT if removed else "")
        else:
            text = conversation.guarded(message)
        written.append({"role": message.role, "content": text})
    return written + _result_turns(results, conversation, family)


def _system_turns(conversation: PromptInput, family: Family) -> list[dict[str, str]]:
    tools = conversation.tools
    text = system_prompt(conversation, thinking=conversation.thinks and family.reasoning is not None)
    if text is None and not (tools and family.tools == 3):  # noqa: PLR2004 - Hermes 3
        text = family.identity
    system = [] if text is None else [{"role": "system", "content": text}]
    if not tools or family.tools is None:
        return system
    if family.tools == 3:  # noqa: PLR2004 - Hermes 3: tools have a turn of their own
        declarations = "\n".join(declaration(tool) for tool in tools)
        return [{"role": "system", "content": tools_prompt(3, conversation.specials.guard(declarations))}, *system]
    offer = tools_prompt(4, "\n".join(conversation.json(tool) for tool in tools))
    # With tools, Hermes 4's template in Llama 3 markup has one line break behind this header, not two.
    return [{"role": "system", "content": f"{text or ''}\n\n{offer}", "gap": "\n"}]


def _result_turns(results: Sequence[Message], conversation: PromptInput, family: Family) -> list[dict[str, str]]:
    """Return one turn with all results of one batch of calls."""
    if not results:
        return []
    blocks = [f"<tool_response>\n{conversation.guarded(result)}\n</tool_response>" for result in results]
    text = "\n".join(blocks)
    if family.tools == 4:  # noqa: PLR2004 - Hermes 4
        return [{"role": "user", "content": text}]
    # The template of Hermes 2 Pro and 3 leaves the last line break out while this is the last turn, and writes it once
    # it is not. It is always here: so it is in training, and the prompt of the next turn begins with this one.
    return [{"role": "tool", "content": text + "\n"}]


def assistant_text(message: Message, conversation: PromptInput, *, removed_thought: str = "") -> str:
    """Return a turn of the model, as it wrote it where that is known.

    `removed_thought` stands in the place of reasoning that is taken out.
    """
    raw = conversation.raw_turns.recall(message)
    if conversation.options.keep_reasoning:
        if raw is not None:
            return conversation.tagged(raw)
        removed_thought = thought(message.reasoning, conversation) if message.reasoning else ""
    elif raw is not None and raw.lstrip().startswith(_THINK):
        _, closed, rest = raw.partition(_END_THINK)
        if closed:
            return removed_thought + conversation.tagged(rest if removed_thought else rest.lstrip())
        raw = None  # the thought never ended; only what came of it is repeated
    if raw is not None:
        body = conversation.tagged(raw)
    else:
        content = [conversation.guarded(message)] if message.content else []
        calls = (
            conversation.specials.guard(f'{{"name": {canonical(call.name)}, "arguments": {canonical(call.arguments)}}}')
            for call in message.tool_calls
        )
        body = "\n".join([*content, *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)])
    return f"{removed_thought}\n{body}" if removed_thought and body else removed_thought + body


def thought(reasoning: str | None, conversation: PromptInput) -> str:
    """Return reasoning between its tags."""
    return f"{_THINK}\n{conversation.specials.guard(reasoning or '')}\n{_END_THINK}"
