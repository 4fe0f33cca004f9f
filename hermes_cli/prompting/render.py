"""Messages, tools and wishes to the exact prompt of a model.

`choose.py` says in which format; a format renders. There are two kinds: ours, composed in the words that the model was
trained on, and the template that a file carries, fed so that what it gets wrong does not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.abilities import arguments_as, examine, switches
from hermes_cli.prompting.compose import Conversation, PromptOptions, answer, system_prompt, thought, turns
from hermes_cli.prompting.families import STOPS
from hermes_cli.prompting.template import ANOTHER, ChatTemplate, built_in_template, plain_message
from hermes_cli.prompting.text import SourcedText, joined, plain, with_tags

if TYPE_CHECKING:
    from hermes_cli.prompting.abilities import Abilities
    from hermes_cli.prompting.families import Family
    from hermes_cli.prompting.messages import Message
    from hermes_cli.prompting.pieces import Specials

_OPEN, _CLOSED = "<think>", "</think>"
_NO_TOOLS_HINT = "leave tools out, or use a model trained for tool calls: hermes list"
_NO_REASONING_HINT = "leave reasoning out, or use Hermes 4 or DeepHermes 3: hermes list"


@dataclass(frozen=True)
class Prompt:
    """What the model is to go on from.

    Attributes:
        text: all of it.
        thinks: thinking was switched on.
        stop: texts that end the turn, beside every end-of-generation token of the vocabulary.
    """

    text: SourcedText
    thinks: bool
    stop: tuple[str, ...]

    @property
    def opening(self) -> str:
        """The `<think>` that the prompt ends with, as some templates open every answer; else empty.

        What `Memory` is given begins with it.
        """
        end = self.text.rstrip()
        return plain(self.text[len(end) - len(_OPEN) :]) if end.endswith(_OPEN) else ""

    @property
    def inside_reasoning(self) -> bool:
        """Whether what the model writes first is reasoning."""
        return bool(self.opening)

    def pieces(self, specials: Specials) -> tuple[str, ...]:
        """The text cut so that each piece can be tokenized with control tokens parsed; see pieces.py."""
        return specials.cut(self.text)


@dataclass(frozen=True)
class OurFormat:
    """Composed by us, for models of a family."""

    family: Family
    bos: str = ""

    @property
    def takes_tools(self) -> bool:
        """Whether tools can be offered."""
        return self.family.tools is not None

    @property
    def reasons(self) -> bool:
        """Whether reasoning can be asked for."""
        return self.family.reasoning is not None

    @property
    def source(self) -> str:
        """Of the template that writes the markup."""
        return self._template.source

    def render(self, request: Conversation) -> Prompt:
        """The prompt.

        Raises:
            UsageError: tools or reasoning are asked of models that have none.
        """
        if request.tools and not self.takes_tools:
            raise _no_tools(f"{self.family.title} models")
        if request.wishes.think and not self.reasons:
            raise _no_reasoning(f"{self.family.title} models have no reasoning mode.")
        text = self._template.write(turns(request, self.family), ())
        thinks = request.thinks and self.reasons
        # Not what cards say of Alpaca's stop, "###": a heading in an answer would end it.
        return Prompt(text, thinks, STOPS[self.family.markup])

    @property
    def _template(self) -> ChatTemplate:
        return built_in_template(self.family.markup, bos=self.bos if self.family.spells_bos else "")


@dataclass(frozen=True)
class FileFormat:
    """By a template that came with the model, or from the user; `tool_use` where there is a second one for tools.

    `prompted_reasoning`: the model thinks when its system prompt says so, whatever the template knows.
    """

    template: ChatTemplate
    tool_use: ChatTemplate | None = None
    prompted_reasoning: bool = False
    stop: tuple[str, ...] = ()

    @property
    def takes_tools(self) -> bool:
        """Whether tools can be offered."""
        return self.with_tools.tools is not None

    @property
    def reasons(self) -> bool:
        """Whether reasoning can be asked for."""
        return self.prompted_reasoning or self.plain.thinking is not None

    @property
    def source(self) -> str:
        """Of the templates."""
        return self.template.source + (self.tool_use.source if self.tool_use else "")

    @cached_property
    def plain(self) -> Abilities:
        """What the template can do."""
        return examine(self.template)

    @cached_property
    def with_tools(self) -> Abilities:
        """What the one for tools can do."""
        return examine(self.tool_use, for_tools=True) if self.tool_use else self.plain

    def render(self, request: Conversation) -> Prompt:
        """The prompt.

        Raises:
            UsageError: tools or reasoning are asked of a model that has none, or the template refused the messages.
            HermesError: the template failed or does too much.
        """
        if request.tools and not self.takes_tools:
            raise _no_tools("this model's chat template")
        template = (self.tool_use or self.template) if request.tools else self.template
        can = self.with_tools if request.tools else self.plain
        said = system_prompt(request, thinking=self._spoken(request, can))
        if said is not None and not can.system:
            raise UsageError("this model's chat template takes no system prompt.", hint=f"leave it out, or {ANOTHER}")
        shaped = _Plain(request, can, "<tool_call>" in template.source)
        messages = [shaped.of(message) for message in request.rest]
        if said is not None:
            messages.insert(0, {"role": "system", "content": said})
        tools = [_complete(tool) for tool in request.tools] if can.tools == "any" else request.tools
        switched = request.thinks if request.thinks or request.wishes.think is not None else None
        variables = {**switches(switched), "keep_cots": request.wishes.keep_reasoning}
        return Prompt(template.write(messages, tools, **variables), request.thinks, self.stop)

    def _spoken(self, request: Conversation, can: Abilities) -> bool:
        """Whether the system prompt has to ask for thinking: where the template does not do it by itself.

        Raises:
            UsageError: thinking is asked for, or not wanted, and there is nothing that switches it.
        """
        if can.thinking == "always":
            return False
        if can.thinking == "alone":
            return request.thinks and (request.system is not None or request.wishes.schema is not False)
        if request.wishes.think is not None and not self.prompted_reasoning:
            word = "has no switch for reasoning" if _OPEN in self.source else "has no reasoning mode"
            if request.wishes.think or _OPEN in self.source:
                raise _no_reasoning(f"this model {word}.")
        return request.thinks and self.prompted_reasoning


@dataclass(frozen=True)
class _Plain:
    """Messages in OpenAI's shape, so that a template with these abilities writes them as they should be.

    `hermes_calls`: the template writes calls as Hermes does, so that they may stand in the content as well.
    """

    request: Conversation
    can: Abilities
    hermes_calls: bool

    def of(self, message: Message) -> dict[str, Any]:
        """One message."""
        plain = plain_message(message)
        if message.role != "assistant":
            return plain
        for call in plain.get("tool_calls", ()):
            call["function"]["arguments"] = arguments_as(self.can.calls, call["function"]["arguments"])
        own = self.request.memory.recall(message)
        lost = self.can.calls is None or (message.content and not self.can.text_beside_calls)
        if own is not None or (message.tool_calls and lost and self.hermes_calls):
            plain.pop("tool_calls")
            plain["content"] = answer(message, self.request)
            if own is not None and self._cuts_thoughts and _CLOSED in own:
                plain["content"] = with_tags(own)
        return self._with_thought(plain, message)

    @property
    def _cuts_thoughts(self) -> bool:
        """Hermes 4's template: with thinking on it cuts the thought out of every earlier turn, or fails."""
        return self.can.needs_thought and self.request.thinks

    def _with_thought(self, plain: dict[str, Any], message: Message) -> dict[str, Any]:
        keep, content = self.request.wishes.keep_reasoning and bool(message.reasoning), plain["content"]
        if _CLOSED in content:
            return plain
        if keep or (self._cuts_thoughts and not self.request.wishes.keep_reasoning):
            plain["content"] = joined((thought(message.reasoning), "\n" if content else "", content))
        elif message.reasoning and self.can.reads_reasoning:
            plain["reasoning_content"] = message.reasoning
        return plain


def _complete(tool: dict[str, Any]) -> dict[str, Any]:
    """With all that some templates need."""
    function = {"description": "", "parameters": {"type": "object", "properties": {}}, **tool["function"]}
    return {**tool, "function": function}


def _no_tools(who: str) -> UsageError:
    verb = "take" if who.endswith("models") else "takes"
    return UsageError(f"{who} {verb} no tools.", hint=_NO_TOOLS_HINT)


def _no_reasoning(message: str) -> UsageError:
    return UsageError(message, hint=_NO_REASONING_HINT)


Format = OurFormat | FileFormat

__all__ = [
    "ChatTemplate",
    "Conversation",
    "FileFormat",
    "Format",
    "OurFormat",
    "Prompt",
    "PromptOptions",
    "built_in_template",
]
