"""Formats: a conversation becomes the exact prompt of a model.

There are two kinds: ours, composed in the words that the model was trained on, and the template of a file, given the
conversation in a form that hides its faults. `choose.py` takes one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.compose import PromptInput, assistant_text, system_prompt, thought, turns
from hermes_cli.prompting.families import STOPS, TURN_TOKENS, Family, write_turns
from hermes_cli.prompting.markers import SpecialTexts, plain
from hermes_cli.prompting.messages import Message
from hermes_cli.prompting.template import ANOTHER, Abilities, ChatTemplate, arguments_as, examine, switches

_OPEN, _CLOSED = "<think>", "</think>"
_PLAIN_TYPES = ("string", "integer", "number", "boolean", "array", "object")
_NO_TOOLS_HINT = "leave tools out, or use a model trained for tool calls: hermes list"
_NO_REASONING_HINT = "leave reasoning out, or use Hermes 4 or DeepHermes 3: hermes list"


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt."""

    text: str  # all of it, with marks: `SpecialTexts.cut` makes pieces of it that can be tokenized
    thinks: bool  # thinking is on
    stop: tuple[str, ...]  # texts that end the turn, beside every end-of-generation token of the vocabulary
    begun: str = ""  # the turn of the model, as far as the client has begun it, with the tags of its thought
    begun_part: str = ""  # of that, the thought or the answer that the model goes on with

    @property
    def plain(self) -> str:
        """Return the text as the model reads it."""
        return plain(self.text)

    @property
    def opening(self) -> str:
        """Return what the turn of the model begins with: a `<think>` of the template, or what the client has begun.

        What a `RawTurnCache` is given begins with it.
        """
        if self.begun:
            return self.begun
        end = self.text.rstrip()
        return self.text[len(end) - len(_OPEN) :] if end.endswith(_OPEN) else ""

    @property
    def inside_reasoning(self) -> bool:
        """Return whether the model goes on in a thought."""
        return self.opening.lstrip().startswith(_OPEN) and _CLOSED not in self.opening

    def continued(self, message: Message, specials: SpecialTexts) -> Prompt:
        """Return the prompt with a turn that the client has begun, in its thought or in what follows that."""
        reasoning, content = message.reasoning or "", message.content or ""
        if reasoning and content:
            text = f"{_OPEN}\n{reasoning}\n{_CLOSED}\n{content}"
        else:
            text = f"{_OPEN}\n{reasoning}" if reasoning else content
        part = content or reasoning
        thinks = text.lstrip().startswith(_OPEN)
        if thinks and not reasoning:
            part = content.lstrip().removeprefix(_OPEN).lstrip("\n")
        if self.opening:  # by the template
            text = text.lstrip().removeprefix(_OPEN).lstrip("\n") if thinks else f"\n{_CLOSED}\n\n{text}"
        return replace(
            self,
            text=self.text + specials.guard(text, keep_tags=True),
            begun=self.opening + text,
            begun_part=part,
        )


@dataclass(frozen=True)
class OurFormat:
    """Composed by us, for models of a family."""

    family: Family
    bos: str = ""

    @property
    def takes_tools(self) -> bool:
        """Tools can be offered."""
        return self.family.tools is not None

    @property
    def reasons(self) -> bool:
        """Reasoning can be asked for."""
        return self.family.reasoning is not None

    @property
    def source(self) -> str:
        """Return the texts that mark turns."""
        return " ".join(TURN_TOKENS[self.family.markup])

    def render(self, conversation: PromptInput) -> Prompt:
        """Return the prompt; raise UsageError if tools or reasoning are asked of models that have none."""
        if conversation.tools and not self.takes_tools:
            raise UsageError(f"{self.family.title} models take no tools.", hint=_NO_TOOLS_HINT)
        if conversation.options.think and not self.reasons:
            raise UsageError(f"{self.family.title} models have no reasoning mode.", hint=_NO_REASONING_HINT)
        bos = self.bos if self.family.spells_bos else ""
        open_turn = conversation.options.generation_prompt
        text = write_turns(self.family.markup, turns(conversation, self.family), bos, generation_prompt=open_turn)
        # Not what cards say of Alpaca's stop, "###": a heading in an answer would end it.
        return Prompt(text, conversation.thinks and self.reasons, STOPS[self.family.markup])


@dataclass(frozen=True)
class FileFormat:
    """Rendered by a template from a model file or from the user."""

    template: ChatTemplate  # the default one
    tool_use: ChatTemplate | None = None  # a second one for conversations with tools
    prompted_reasoning: bool = False  # the model thinks when its system prompt says so, whatever the template can do
    stop: tuple[str, ...] = ()  # texts that end the turn

    @property
    def takes_tools(self) -> bool:
        """Tools can be offered."""
        return self.with_tools.tools is not None

    @property
    def reasons(self) -> bool:
        """Reasoning can be asked for."""
        return self.prompted_reasoning or self.plain.thinking is not None

    @property
    def source(self) -> str:
        """Return the templates' source."""
        return self.template.source + (self.tool_use.source if self.tool_use else "")

    @cached_property
    def plain(self) -> Abilities:
        """Return the abilities of the default template."""
        return examine(self.template)

    @cached_property
    def with_tools(self) -> Abilities:
        """Return the abilities of the template for tools."""
        return examine(self.tool_use, for_tools=True) if self.tool_use else self.plain

    def render(self, conversation: PromptInput) -> Prompt:
        """Return the prompt.

        Raises:
            UsageError: tools or reasoning are asked of a model that has none, or the template refused the messages.
            HermesError: the template failed or does too much.
        """
        if conversation.tools and not self.takes_tools:
            raise UsageError("this model's chat template takes no tools.", hint=_NO_TOOLS_HINT)
        template = (self.tool_use or self.template) if conversation.tools else self.template
        abilities = self.with_tools if conversation.tools else self.plain
        system = system_prompt(conversation, thinking=self._prompts_thinking(conversation, abilities))
        if system is not None and not abilities.system:
            raise UsageError("this model's chat template takes no system prompt.", hint=f"leave it out, or {ANOTHER}")
        writer = _MessageWriter(conversation, abilities, "<tool_call>" in template.source)
        messages = [writer.write(message) for message in conversation.rest]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        tools = conversation.tools
        if abilities.tools == "any":  # some templates need all fields
            fields = {"description": "", "parameters": {"type": "object", "properties": {}}}
            tools = [{**tool, "function": {**fields, **tool["function"]}} for tool in tools]
        options = conversation.options
        switch = conversation.thinks if conversation.thinks or options.think is not None else None
        variables = {**switches(switch), "keep_cots": options.keep_reasoning}
        variables["add_generation_prompt"] = options.generation_prompt
        guard = conversation.specials.guard_all
        try:
            text = template.write(messages, guard(tools), **variables)
        except UsageError:
            raise
        except HermesError:
            if not tools:
                raise
            text = template.write(messages, guard([_plain_tool(tool) for tool in tools]), **variables)
        return Prompt(text, conversation.thinks, self.stop)

    def _prompts_thinking(self, conversation: PromptInput, abilities: Abilities) -> bool:
        """Return whether the system prompt has to ask for thinking, because the template does not do it by itself."""
        think = conversation.options.think
        if abilities.thinking == "always":
            return False
        if abilities.thinking == "alone":
            has_system = conversation.system is not None or conversation.options.schema is not False
            return conversation.thinks and has_system
        if think is not None and not self.prompted_reasoning:
            fault = "has no switch for reasoning" if _OPEN in self.source else "has no reasoning mode"
            if think or _OPEN in self.source:
                raise UsageError(f"this model {fault}.", hint=_NO_REASONING_HINT)
        return conversation.thinks and self.prompted_reasoning


def _plain_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool with nothing but names, types and descriptions of its arguments.

    Templates that write types as Python's fail at others: Hermes 2 Pro's does at `["string", "null"]`.
    """
    function = tool["function"]
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    arguments = {}
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        said = schema if isinstance(schema, dict) else {}
        kinds = said.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        kind = next((kind for kind in kinds if kind in _PLAIN_TYPES), "string")
        arguments[name] = {"type": kind, "description": str(said.get("description") or "")}
        if kind == "array":
            arguments[name]["items"] = {"type": "string"}
    required = parameters.get("required") if isinstance(parameters, dict) else None
    names = [name for name in arguments if name in required] if isinstance(required, list) else []
    plain_parameters = {"type": "object", "properties": arguments, "required": names}
    return {**tool, "function": {**function, "parameters": plain_parameters}}


@dataclass(frozen=True)
class _MessageWriter:
    """Writes messages in OpenAI's shape so that a template with these abilities renders them as they should be.

    `hermes_calls`: the template writes calls as Hermes does, so that they may stand in the content as well.
    """

    conversation: PromptInput
    abilities: Abilities
    hermes_calls: bool

    def write(self, message: Message) -> dict[str, Any]:
        """Return one message, its content guarded; always with a text, arguments as the template wants them."""
        conversation, abilities = self.conversation, self.abilities
        written: dict[str, Any] = {"role": message.role, "content": conversation.guarded(message)}
        if message.role == "tool":
            written["tool_call_id"] = message.tool_call_id or ""
            written["name"] = conversation.specials.guard(message.name or "", alone=False)
        if message.role != "assistant":
            return written
        # Hermes 4's template cuts the thought out of every earlier turn, and fails where there is none.
        removes_thoughts = abilities.needs_thought and conversation.thinks
        raw = conversation.raw_turns.recall(message)
        lost = abilities.calls is None or (message.content and not abilities.text_beside_calls)
        if raw is not None or (message.tool_calls and lost and self.hermes_calls):
            written["content"] = assistant_text(message, conversation)
            if raw is not None and removes_thoughts and _CLOSED in raw:
                written["content"] = conversation.tagged(raw)
        elif message.tool_calls:
            written["tool_calls"] = []
            for call in message.tool_calls:
                function = {"name": call.name, "arguments": arguments_as(abilities.calls, call.arguments)}
                guarded = conversation.specials.guard_all(function)
                written["tool_calls"].append({"id": call.id, "type": "function", "function": guarded})
        keeps, content = conversation.options.keep_reasoning, written["content"]
        if _CLOSED in content:
            return written
        if (keeps and message.reasoning) or (removes_thoughts and not keeps):
            reasoning = thought(message.reasoning, conversation)
            written["content"] = f"{reasoning}\n{content}" if content else reasoning
        elif message.reasoning and abilities.reads_reasoning:
            written["reasoning_content"] = conversation.specials.guard(message.reasoning)
        return written


Format = OurFormat | FileFormat
