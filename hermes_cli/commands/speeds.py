"""Speeds and waiting times in words, for `recommend`, `plan` and `bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.planning.speed import FirstToken, Speed

MINUTE, HOUR = 60, 3600  # seconds
PAGE = 1024  # tokens of a closely written page: some 750 words
TWO_DIGITS = 10


def speed_lines(decode: Speed, prefill: Speed, first: FirstToken) -> tuple[str, str, str]:
    """Return decode and prefill speed with range and source, and the time to the first token, in three lines.

    Beside the prefill speed, which is that of 512 tokens, stands that of the whole first prompt: attention to earlier
    tokens makes it slower.
    """

    def stated(speed: Speed) -> str:
        return f"{per_second(speed.expected)} ({two_digits(speed.low)} to {two_digits(speed.high)}, {speed.source})"

    tokens, over_all = f"{first.prompt_tokens:,} tokens", two_digits(first.prompt_tokens / first.expected)
    low, high = duration(first.low), duration(first.high)
    if low.split()[1] == high.split()[1]:
        low = low.split()[0]
    later = f"{duration(first.turn)} for {first.turn_tokens:,} more"
    return (
        f"decode {stated(decode)}",
        f"prefill {stated(prefill)}; {over_all} over {tokens}",
        f"first token after {duration(first.expected)} ({low} to {high}) for {tokens}, {later}",
    )


def in_words(decode: Speed, first: FirstToken) -> list[str]:
    """Return what a person meets: how fast it writes, and how long a text waits for the first word of its answer."""
    low, high = two_digits(decode.low), two_digits(decode.high)
    pages = round(first.prompt_tokens / PAGE)
    text = "a page of text" if pages <= 1 else f"{pages} pages of text"
    wait = f"{duration(first.expected)} before the first word ({duration(first.low)} to {duration(first.high)})"
    return [
        f"writes {per_second(decode.expected)} ({low} to {high}, {decode.source})",
        f"{text} ({first.prompt_tokens:,} tokens): {wait}; {duration(first.turn)} for {first.turn_tokens:,} more",
    ]


def speed_document(speed: Speed) -> dict[str, float | str]:
    """Return a speed as JSON documents hold it."""
    return {"expected": speed.expected, "low": speed.low, "high": speed.high, "source": speed.source}


def per_second(speed: float) -> str:
    """Return a speed with two digits at least."""
    return f"{two_digits(speed)} tokens/s"


def two_digits(value: float) -> str:
    """Return a number with one decimal below ten, else with none."""
    return f"{value:,.0f}" if value >= TWO_DIGITS else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Return a time in the unit that people would use."""
    if seconds < MINUTE:
        return f"{two_digits(seconds)} s"
    return f"{two_digits(seconds / MINUTE)} min" if seconds < HOUR else f"{two_digits(seconds / HOUR)} h"
