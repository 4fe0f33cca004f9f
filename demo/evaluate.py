"""Measures the demo model in llama.cpp, through hermes' own engine, on held-out dialogues.

    python evaluate.py                     # the model that ships
    python evaluate.py --model demo.gguf   # another file

Every assistant turn of every dialogue is generated greedily from the true turns before it and compared as a whole:
calls by name and arguments, text letter by letter. All invented words are from the tenth that training never saw.
"""

import argparse
import collections
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from dialogues import Dialogue, Message, dialogue
from plain import FACTS
from rendering import TEMPLATE_FILE
from words import Style

from hermes_cli import generation as g
from hermes_cli import paths
from hermes_cli.engine.embedded.fit_check import check_fit
from hermes_cli.errors import ContextFullError
from hermes_cli.planning.load_plan import LoadOverrides

GREEDY = g.SamplingOptions(temperature=0)
LONGEST_TURN = 400
_template_names = jinja2.Environment(autoescape=True).from_string(TEMPLATE_FILE.read_text(encoding="utf-8")).module
THINKING_PROMPT: str = _template_names.thinking_prompt  # type: ignore[attr-defined]
STANDARD_PROMPT: str = _template_names.standard_prompt  # type: ignore[attr-defined]


@dataclass
class Turn:
    """What was wanted of one turn and what came."""

    kind: str
    wanted: g.Message
    thinking: bool
    content: str = ""
    reasoning: str = ""
    calls: list[g.ToolCall] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether calls and text are as wanted; the wording of a thought is free."""
        wanted = (self.wanted.content or "").rpartition("</think>")[2].strip()
        return tuple(self.calls) == self.wanted.tool_calls and self.content == wanted

    @property
    def thought_rightly(self) -> bool:
        """Whether it reasoned when asked to and only then."""
        return bool(self.reasoning) == self.thinking


def message(raw: Message) -> g.Message:
    """A dialogue's message as hermes' own."""
    calls = tuple(g.ToolCall(c["function"]["name"], c["function"]["arguments"]) for c in raw.get("tool_calls", []))
    return g.Message(raw["role"], raw["content"], calls)


def history(conversation: Dialogue) -> list[g.Message]:
    """All messages; the reasoning prompt stands in the system message, where the template would put it."""
    messages = [message(raw) for raw in conversation.messages]
    if conversation.thinking:
        given = messages.pop(0).content if messages[0].role == "system" else STANDARD_PROMPT
        messages.insert(0, g.Message("system", f"{THINKING_PROMPT}\n\n{given}"))
    return messages


def kind_of(conversation: Dialogue, messages: list[g.Message], index: int) -> str:
    """What a turn tests."""
    wanted = messages[index]
    if conversation.thinking:
        return "thinks first"
    if len(wanted.tool_calls) > 1:
        return "two calls in one turn"
    if wanted.tool_calls:
        return "one tool call"
    if messages[index - 1].role == "tool":
        return "answer from tool responses"
    return "JSON of the schema" if conversation.kind == "json" else "plain answer"


def play(chatter: g.ChatModel, conversation: Dialogue) -> Iterator[Turn]:
    """Generate every assistant turn (the last one only, where it is to reason) from the true history."""
    messages = history(conversation)
    places = [index for index, one in enumerate(messages) if one.role == "assistant"]
    for index in places[-1:] if conversation.thinking else places:
        turn = Turn(kind_of(conversation, messages, index), messages[index], conversation.thinking)
        for event in chatter.answer(messages[:index], conversation.tools, GREEDY, LONGEST_TURN):
            if isinstance(event, g.Content):
                turn.content += event.text
            elif isinstance(event, g.Reasoning):
                turn.reasoning += event.text
            elif isinstance(event, g.CallFinished) and event.complete:
                turn.calls.append(event.call)
        yield turn


def facts() -> Iterator[Dialogue]:
    """Every question that the model should know, in every wording."""
    for _, asks, answer in FACTS:
        for ask in asks:
            messages: list[dict[str, Any]] = [
                {"role": "user", "content": f"{ask}?"},
                {"role": "assistant", "content": answer},
            ]
            yield Dialogue("fact", messages)


@dataclass
class Table:
    """Turns that were right, of how many, by kind; and the wrong ones."""

    title: str
    right: collections.Counter[str] = field(default_factory=collections.Counter)
    total: collections.Counter[str] = field(default_factory=collections.Counter)
    misses: list[Turn] = field(default_factory=list)
    dialogues: int = 0

    def count(self, kind: str, *, good: bool) -> None:
        """One more of a kind."""
        self.total[kind] += 1
        self.right[kind] += good

    def play(self, chatter: g.ChatModel, conversation: Dialogue) -> None:
        """Play a dialogue and count its turns; one that is longer than the context was never trained on either."""
        try:
            turns = list(play(chatter, conversation))
        except ContextFullError:
            return
        self.dialogues += 1
        for turn in turns:
            self.count(turn.kind, good=turn.exact)
            self.count("thinks when asked, and only then", good=turn.thought_rightly)
            if not turn.exact:
                self.misses.append(turn)

    def show(self, most: int) -> None:
        """Print it as Markdown, and up to `most` wrong turns."""
        print(f"\n{self.title}: {self.dialogues} dialogues\n")
        print("| turn | exact | of | share |\n| --- | ---: | ---: | ---: |")
        for kind in sorted(self.total):
            share = self.right[kind] / self.total[kind]
            print(f"| {kind} | {self.right[kind]} | {self.total[kind]} | {share:.1%} |")
        for turn in self.misses[:most]:
            print(f"\n{turn.kind}\n  wanted {turn.wanted}\n  came   {turn.content!r} {turn.calls}")


def main() -> None:
    """Play dialogues with ordinary tools, then with tools whose very names are invented, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=paths.asset("demo.gguf"))
    parser.add_argument("--dialogues", type=int, default=600, help="of each kind")
    parser.add_argument("--show-misses", type=int, default=0, help="print this many wrong turns of each kind")
    options = parser.parse_args()
    ordinary = Table("tools with English names, everything asked of them held out")
    invented = Table("tools whose names are held out, too")
    with g.ChatModel(options.model, check_fit(options.model, LoadOverrides()).plan) as chatter:
        for number in range(options.dialogues):
            style = Style(held_out=True, ordinary_tools=True)
            ordinary.play(chatter, dialogue(random.Random(f"ordinary {number}"), style))
            invented.play(chatter, dialogue(random.Random(f"evaluation {number}"), Style(held_out=True)))
        for fact in facts():
            for turn in play(chatter, fact):
                ordinary.count("known questions, every wording", good=turn.exact)
    ordinary.show(options.show_misses)
    invented.show(options.show_misses)


if __name__ == "__main__":
    main()
