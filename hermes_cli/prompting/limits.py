"""How much a chat template may do. Templates come with model files, from strangers, and are programs.

Counted are steps (turns of loops, calls, filters), characters made, and the processor time of the rendering thread.
There are no signals and no threads to kill, so nothing a template can say may run long in one step: strings and lists
are measured before they are made.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_cli.prompting.text import SourcedText

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 100_000
STEPS_PER_VALUE = 500  # a value: a text, number or list anywhere in messages and tools
CHARACTERS = 16_000_000
CHARACTERS_PER_CHARACTER = 128
SECONDS = 1.0
SECONDS_PER_VALUE = 1e-3
SECONDS_PER_CHARACTER = 1e-6

LIST_ITEM = 8  # a list counts as this many characters for each item: it holds a pointer
MOST_VALUES = 100_000  # in one list or dictionary, with all that is in it
DEEPEST = 200
LARGEST_NUMBER = 2**63
WHOLE = (list, tuple, dict)


class LimitError(Exception):
    """A template does too much; the message says what."""


@dataclass
class Budget:
    """What is left for one rendering: steps, characters, values in one structure, and until when (thread time)."""

    steps: int = STEPS
    characters: int = CHARACTERS
    values: int = MOST_VALUES
    deadline: float = 0.0

    @classmethod
    def for_input(cls, given: object) -> Budget:
        """Enough for any honest template to render what is given."""
        values, characters = measure(given)
        return cls(
            STEPS + STEPS_PER_VALUE * values,
            CHARACTERS + CHARACTERS_PER_CHARACTER * characters,
            MOST_VALUES + 2 * values,
            time.thread_time() + SECONDS + SECONDS_PER_VALUE * values + SECONDS_PER_CHARACTER * characters,
        )

    def step(self) -> None:
        """Count one.

        Raises:
            LimitError: that was one too many, or it takes too long.
        """
        self.steps -= 1
        if self.steps < 0:
            raise LimitError("it loops without end")
        if time.thread_time() > self.deadline:
            raise LimitError("it takes too long")

    def spend(self, characters: int) -> None:
        """Count characters that are about to be made.

        Raises:
            LimitError: they are too many.
        """
        self.characters -= characters
        if self.characters < 0:
            raise LimitError("it makes too much text")

    def admit(self, value: Any) -> Any:  # noqa: ANN401 - whatever a template made
        """The value, if it is no larger than a template may make.

        Raises:
            LimitError: it has too many parts, or is nested too deeply: such are made to explode when printed.
        """
        if isinstance(value, str):
            self.spend(len(value))
        elif isinstance(value, WHOLE):
            self.spend(LIST_ITEM * len(value))
            self._weigh(value)
        elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise LimitError("its numbers are too large")
        return value

    def _weigh(self, value: Any) -> None:  # noqa: ANN401 - as above
        """Every part of a list or dictionary counts as often as it would be printed."""
        seen, waiting = 0, [(value, 1)]
        while waiting:
            part, depth = waiting.pop()
            seen += len(part)
            if seen > self.values or depth > DEEPEST:
                raise LimitError("what it builds is too large")
            inner = part.values() if isinstance(part, dict) else part
            waiting += [(one, depth + 1) for one in inner if isinstance(one, WHOLE)]
        if seen > STEPS_PER_VALUE:
            self.steps -= seen // STEPS_PER_VALUE
            self.step()


def measure(value: object) -> tuple[int, int]:
    """Number of values and of characters in messages and tools."""
    values, characters, waiting = 0, 0, [value]
    while waiting:
        part = waiting.pop()
        values += 1
        if isinstance(part, str):
            characters += len(part)
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, (list, tuple)):
            waiting += part
    return values, characters


_current: ContextVar[Budget] = ContextVar("budget")


def budget() -> Budget:
    """Of the rendering that goes on in this thread."""
    return _current.get()


@contextmanager
def spending(allowed: Budget) -> Iterator[None]:
    """Render within a budget."""
    token = _current.set(allowed)
    try:
        yield
    finally:
        _current.reset(token)


def check_printable(value: object) -> int:
    """Characters it takes to write a value out, roughly.

    Raises:
        LimitError: there is something in it that has no written form.
    """
    characters, waiting = 0, [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            characters += len(part) + 2
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, (list, tuple)):
            waiting += part
        elif part is None or isinstance(part, (bool, int, float)):
            characters += LIST_ITEM
        else:
            raise LimitError(f"it prints a {type(part).__name__}")
    return characters


def holds_content(value: object) -> bool:
    """Whether anything in it was said by somebody, not written by the template."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, SourcedText):
            return True
        if isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, (list, tuple)):
            waiting += part
    return False
