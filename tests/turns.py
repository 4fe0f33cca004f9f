"""What tests of the parser share: a turn put together from events, with the contract of the events checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NoReturn

from hermes_cli.prompting.messages import CallArguments, CallFinished, CallStarted, Content, Event, Reasoning, ToolCall
from hermes_cli.prompting.parse import Parser


@dataclass(frozen=True)
class Turn:
    """Content, reasoning, calls; the arguments also as the text that was streamed."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    written: tuple[str, ...] = field(default=(), compare=False)
    complete: tuple[bool, ...] = field(default=(), compare=False)


def events_of(pieces: Iterable[str], parser: Parser | None = None) -> list[Event]:
    parser = parser or Parser()
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish()


def turn_of(pieces: Iterable[str], parser: Parser | None = None) -> Turn:
    events = events_of(pieces, parser)
    texts = {kind: "".join(event.text for event in events if isinstance(event, kind)) for kind in (Content, Reasoning)}
    assert all(text == text.strip() for text in texts.values())
    assert all(event.text for event in events if isinstance(event, Content | Reasoning | CallArguments))
    calls = list(_calls([e for e in events if not isinstance(e, Content | Reasoning)]))
    finished = [end for end, _ in calls]
    assert len({end.call.id for end in finished}) == len(calls)
    return Turn(
        texts[Content],
        texts[Reasoning],
        tuple(end.call for end in finished),
        tuple(written for _, written in calls),
        tuple(end.complete for end in finished),
    )


def _calls(events: list[Event]) -> Iterator[tuple[CallFinished, str]]:
    """Started, arguments, finished, one call after the other."""
    rest = iter(events)
    for index, start in enumerate(rest):
        assert isinstance(start, CallStarted)
        written = ""
        for event in rest:
            assert isinstance(event, CallArguments | CallFinished)
            assert event.index == start.index == index
            if isinstance(event, CallFinished):
                assert (event.call.id, event.call.name) == (start.id, start.name)
                assert strictly(written) == event.call.arguments
                written.encode()  # no lone halves of characters: it can be sent
                yield event, written
                break
            written += event.text


def strictly(text: str) -> object:
    """JSON without Python's additions."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def cut(text: str, cuts: Iterable[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
