"""Sides taking turns in the scenarios of engine.py, and what comes of it: ratios pair by pair."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.scenarios import Measure, Outcome, Scenario
from benchmarks.sides import Side

OURS, THEIRS = "hermes", "llama-server"
PLAIN = "hermes, not speculating"


@dataclass
class Contestant:
    """A side in one scenario, and what it reached in each round."""

    label: str
    side: Side
    scenario: Scenario
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One comparison; `ratio`, `least` and `most` are above 1 where the first side is better.

    Rounds in which an answer was wrong do not count; where none is left, there are no numbers.

    Attributes:
        scenario: its letter.
        measure: its key; `title` is for people.
        first, second: who was compared.
        ratio: the median of the pairs'.
        least, most: the smallest and the largest.
        pairs: how many rounds counted.
        target: what the ratio has to be, None if it is told for the record.
        unit: of `of_first` and `of_second`, the medians of what was measured.
        notes: what makes the comparison less than fair.
    """

    scenario: str
    measure: str
    title: str
    first: str
    second: str
    ratio: float | None
    least: float | None
    most: float | None
    pairs: int
    target: float | None
    unit: str
    of_first: float | None
    of_second: float | None
    notes: tuple[str, ...]


async def contest(contestants: Sequence[Contestant], rounds: int) -> None:
    """Let them take turns, in another order in each round, after a round that warms up."""
    for number in range(rounds + 1):
        at = number % len(contestants)
        for one in (*contestants[at:], *contestants[:at]):
            if number:
                one.outcomes.append(await one.scenario.run(one.side, number))
            else:
                await one.scenario.warm(one.side)


def compared(contestants: Sequence[Contestant]) -> list[Row]:
    """The first with each of the others; and without speculation the two that do without."""
    pairs = [(contestants[0], other) for other in contestants[1:]]
    by_label = {one.label: one for one in contestants}
    if PLAIN in by_label:
        pairs.append((by_label[PLAIN], by_label[THEIRS]))
    return [_row(measure, *pair) for pair in pairs for measure in contestants[0].scenario.measures]


def _row(measure: Measure, first: Contestant, second: Contestant) -> Row:
    pairs = zip(first.outcomes, second.outcomes, strict=True)
    numbers = [(a.values[measure.key], b.values[measure.key]) for a, b in pairs if not (a.wrong or b.wrong)]
    ratios = [a / b if measure.more else b / a for a, b in numbers]
    return Row(
        scenario=first.scenario.letter,
        measure=measure.key,
        title=measure.title,
        first=first.label,
        second=second.label,
        ratio=_median(ratios),
        least=min(ratios, default=None),
        most=max(ratios, default=None),
        pairs=len(ratios),
        target=measure.target if (first.label, second.label) == (OURS, THEIRS) else None,
        unit=measure.unit,
        of_first=_median([a for a, _ in numbers]),
        of_second=_median([b for _, b in numbers]),
        notes=tuple(_notes(first, second)),
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _notes(first: Contestant, second: Contestant) -> list[str]:
    sides = (first, second)
    notes = [
        f"{one.label}, round {number}: {outcome.wrong}"
        for one in sides
        for number, outcome in enumerate(one.outcomes, 1)
        if outcome.wrong
    ]
    prompts = [sum(outcome.prompt_tokens for outcome in one.outcomes) for one in sides]
    answers = [sum(outcome.tokens for outcome in one.outcomes) for one in sides]
    for what, (ours, theirs) in (("prompts", prompts), ("answers", answers)):
        if ours and theirs and ours != theirs:  # 0 is not known
            notes.append(f"{what} of {ours:,} tokens ({first.label}) and {theirs:,} tokens ({second.label})")
    guessed = {one.label: sum(outcome.guessed for outcome in one.outcomes) for one in sides}
    notes += [f"{label} guessed {count:,} tokens of its answers ahead" for label, count in guessed.items() if count]
    return notes
