"""What engine.py measures. Each contestant gets a scenario of its own, which may remember what was said before."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import ClassVar

from benchmarks.material import ANSWER, Json, Material, call_schema, turn
from benchmarks.sides import Answer, Counts, Piece, Side, Task, answer
from hermes_cli.prompting.messages import CallFinished
from hermes_cli.prompting.parse import Parser

Validator = import_module("jsonschema").Draft202012Validator  # it has no types

STREAMS, REQUESTS = 8, 16
WRITTEN, SHORT = 96, 32  # tokens
MOST = 1024  # tokens of an answer that a grammar is to end
RUNNING = 8  # tokens after which a stream counts as running


@dataclass(frozen=True)
class Measure:
    """A number that a scenario gives.

    Attributes:
        key: its name in JSON.
        unit: of the number.
        title: in the table.
        more: whether a larger one is better.
        target: the ratio to reach, None for what is told for the record.
    """

    key: str
    unit: str
    title: str
    more: bool = False
    target: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One measurement: numbers by key, tokens, and what was wrong with the answer, if anything.

    Tokens are those of prompts, of answers, and of these how many were guessed ahead.
    """

    values: dict[str, float]
    prompt_tokens: int = 0
    tokens: int = 0
    guessed: int = 0
    wrong: str = ""


@dataclass
class Scenario:
    """One contestant's: `speculate` is whether hermes may, where that is compared.

    The class says what all contestants share: its letter, its requests at once (`slots`), what it gives (the first of
    its measures names it), whether a grammar bounds it, and which part of the rounds it takes.
    """

    material: Material
    speculate: bool = True
    letter: ClassVar[str]
    slots: ClassVar[int] = 1
    measures: ClassVar[tuple[Measure, ...]]
    bound: ClassVar[bool] = False
    share: ClassVar[float] = 1.0

    @classmethod
    def cells(cls, material: Material) -> int:
        """Tokens of context that all its requests together need."""
        return max(material.reach, cls.slots * 256)

    async def warm(self, side: Side) -> None:
        """Once, before all rounds; not measured."""
        await self.run(side, 0)

    async def run(self, side: Side, number: int) -> Outcome:
        """One round; they count from 1."""
        raise NotImplementedError


class OneStream(Scenario):
    """(a) One stream."""

    letter = "a"
    measures = (Measure("rate", "tokens/s", "one stream", more=True, target=0.97),)

    async def run(self, side: Side, number: int) -> Outcome:
        """Tokens per second after the first; nobody guesses ahead, so that both compute the same."""
        got = await answer(side, Task(self.material.question(number), WRITTEN, speculate=False))
        return _outcome({"rate": got.rate}, got)


class Streams(Scenario):
    """(b) Several streams at once."""

    letter = "b"
    slots = STREAMS
    measures = (Measure("rate", "tokens/s", f"{STREAMS} streams together", more=True, target=1.0),)

    async def run(self, side: Side, number: int) -> Outcome:
        """Tokens per second of all together, from sending to the last end."""
        prompts = [self.material.question(number * STREAMS + i) for i in range(STREAMS)]
        got = await asyncio.gather(*(answer(side, Task(prompt, WRITTEN, speculate=False)) for prompt in prompts))
        return _outcome({"rate": sum(one.tokens for one in got) / _wall(got)}, *got)


@dataclass
class Chat(Scenario):
    """(c) The tenth turn of a chat; the rounds are the tenth, eleventh and so on."""

    letter = "c"
    measures = (Measure("first", "s", "first token, turn 10 of a chat", target=1.0),)
    _said: str = ""

    async def warm(self, side: Side) -> None:
        """Turn 9."""
        self._said = self.material.history()
        await self.run(side, 0)

    async def run(self, side: Side, number: int) -> Outcome:
        """Seconds to the first token of the next answer."""
        self._said += turn("user", f"And then? {self.material.text(30, 70 + number)}") + ANSWER
        got = await answer(side, Task(self._said, SHORT))
        self._said += got.text + "<|im_end|>\n"
        return _outcome({"first": got.first}, got)


class SharedPrompt(Scenario):
    """(d) Many requests with one long system prompt, new in each round."""

    letter = "d"
    slots = REQUESTS
    measures = (Measure("seconds", "s", f"{REQUESTS} requests, one system prompt", target=1.0),)
    share = 0.5  # it takes most of the time

    @classmethod
    def cells(cls, material: Material) -> int:
        """Without sharing, each request has the whole system prompt."""
        return cls.slots * (material.system_tokens + 256)

    async def warm(self, side: Side) -> None:
        """A few short requests."""
        await answer(side, Task(self.material.question(0), SHORT))

    async def run(self, side: Side, number: int) -> Outcome:
        """Seconds until the last one is answered."""
        prompts = self.material.shared(number, REQUESTS)
        got = await asyncio.gather(*(answer(side, Task(prompt, SHORT)) for prompt in prompts))
        return _outcome({"seconds": _wall(got)}, *got)


class Arrival(Scenario):
    """(e) A long prompt arrives while a stream runs."""

    letter = "e"
    slots = STREAMS
    measures = (
        Measure("gap", "s", "longest gap while a prompt arrives", target=1.0),
        Measure("first", "s", "  first token of that prompt"),
    )

    @classmethod
    def cells(cls, material: Material) -> int:
        """The stream and the prompt have half of the reach each."""
        return material.reach + 512

    async def warm(self, side: Side) -> None:
        """A short request."""
        await answer(side, Task(self.material.question(0), SHORT))

    async def run(self, side: Side, number: int) -> Outcome:
        """Longest time between two pieces of the stream until the other one's first token, and when that came."""
        at: list[float] = []
        arriving: asyncio.Task[Answer] | None = None
        ended = False
        # Speculating it could come to its end before the prompt is read.
        task = Task(self.material.question(number), self.material.reach // 2, speculate=False)
        async with aclosing(side.stream(task)) as stream:
            async for item in stream:
                ended = isinstance(item, Counts)
                if isinstance(item, Piece):
                    at.append(item.at)
                if arriving and arriving.done():
                    break
                if len(at) == RUNNING:
                    arriving = asyncio.create_task(answer(side, Task(self.material.arriving(number), 1)))
        if not arriving:
            raise RuntimeError(f"{side.name} ended a stream of {task.tokens} tokens after {len(at)}.")
        got = await arriving
        gaps = [later - sooner for sooner, later in pairwise(at) if later > got.sent]
        wrong = "the stream ended first" if ended else ""
        return _outcome({"gap": max(gaps, default=got.first), "first": got.first}, got, wrong=wrong)


class ToolCall(Scenario):
    """(f) A call whose arguments have a nested schema; tools and schema stay the same in all rounds."""

    letter = "f"
    measures = (Measure("seconds", "s", "tool call, nested schema", target=1.5),)
    bound = True

    async def run(self, side: Side, number: int) -> Outcome:
        """Seconds until the call is whole."""
        prompt, tool = self.material.trip(number)
        got = await answer(side, Task(prompt, MOST, tool=tool))
        wrong = _refused(call_schema(tool), lambda: _called(got.text))
        return _outcome({"seconds": got.seconds}, got, wrong=wrong)


class Extract(Scenario):
    """(g) All fields of a text as JSON."""

    letter = "g"
    measures = (Measure("seconds", "s", "JSON, 40 fields", target=1.5),)
    bound = True

    async def run(self, side: Side, number: int) -> Outcome:
        """Seconds until it is whole."""
        record = self.material.record(number)
        got = await answer(side, Task(record.prompt, MOST, schema=record.schema))
        return _outcome({"seconds": got.seconds}, got, wrong=_refused(record.schema, lambda: json.loads(got.text)))


class Repeat(Scenario):
    """(h) A file again, unchanged."""

    letter = "h"
    measures = (Measure("rate", "tokens/s", "text that repeats its input", more=True, target=1.3),)

    async def run(self, side: Side, number: int) -> Outcome:
        """Tokens per second after the first."""
        prompt, tokens = self.material.code(number)
        got = await answer(side, Task(prompt, tokens, speculate=self.speculate))
        return _outcome({"rate": got.rate}, got)


SCENARIOS: tuple[type[Scenario], ...] = (OneStream, Streams, Chat, SharedPrompt, Arrival, ToolCall, Extract, Repeat)


def _wall(answers: list[Answer]) -> float:
    return max(one.ended for one in answers) - min(one.sent for one in answers)


def _outcome(values: dict[str, float], *answers: Answer, wrong: str = "") -> Outcome:
    prompts, guessed = sum(one.counts.prompt for one in answers), sum(one.counts.guessed for one in answers)
    return Outcome(values, prompts, sum(one.tokens for one in answers), guessed, wrong)


def _called(text: str) -> Json:
    """A call in tags, as hermes writes it, or bare."""
    if not text.startswith("<tool_call>"):
        return dict(json.loads(text))
    parser = Parser()
    calls = [event.call for event in [*parser.feed(text), *parser.finish()] if isinstance(event, CallFinished)]
    return {"name": calls[0].name, "arguments": calls[0].arguments}


def _refused(schema: Json, read: Callable[[], object]) -> str:
    """Why an answer is not what was asked for; empty if it is."""
    try:
        error = next(Validator(schema).iter_errors(read()), None)
    except (ValueError, IndexError) as broken:
        return f"no JSON: {broken}"
    return f"not valid: {error.message}" if error else ""
