"""Speeds and waiting times in words, for `recommend`, `plan` and `bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.planning.speed import FirstToken, Speed

MINUTE, HOUR = 60, 3600  # seconds
TWO_DIGITS = 10


def range_of(speed: Speed) -> str:
    """Return the expected speed with its range and source."""
    return f"{per_second(speed.expected)} ({two_digits(speed.low)} to {two_digits(speed.high)}, {speed.source})"


def speed_document(speed: Speed) -> dict[str, float | str]:
    """Return a speed as JSON documents hold it."""
    return {"expected": speed.expected, "low": speed.low, "high": speed.high, "source": speed.source}


def per_second(speed: float) -> str:
    """Return a speed with two digits at least."""
    return f"{two_digits(speed)} tokens/s"


def two_digits(value: float) -> str:
    """Return a number with one decimal below ten, else with none."""
    return f"{value:,.0f}" if value >= TWO_DIGITS else f"{value:.1f}"


def first_token_after(first: FirstToken) -> str:
    """Return the time to the first token of a first prompt and of a later turn."""
    low, high = duration(first.low), duration(first.high)
    after = f"first token after {duration(first.expected)} ({low} to {high}) of {first.prompt_tokens:,} tokens"
    return f"{after}, after {duration(first.turn)} of {first.turn_tokens:,} more"


def duration(seconds: float) -> str:
    """Return a time in the unit that people would use."""
    if seconds < MINUTE:
        return f"{two_digits(seconds)} s"
    return f"{two_digits(seconds / MINUTE)} min" if seconds < HOUR else f"{two_digits(seconds / HOUR)} h"
