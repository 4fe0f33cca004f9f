"""Reading the log of an engine: how far a start is, and why it failed.

The last line of a failed start is seldom the reason. vLLM ends with "Engine core initialization failed. See root cause
above", llama-server with "exiting due to model loading error".
"""

from __future__ import annotations

import re
from itertools import chain

SHOWN = 300  # characters of a line
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")
# What stands before the message: vLLM's "(EngineCore pid=7) ERROR 11-30 18:00:01 [core.py:1104] ", llama-server's
# "0.01.532.779 E srv  load_model: ", and times of other loggers.
_PREFIX = re.compile(
    r"^(?:\([^)]*pid=\d+\)\s*)?(?:(?:ERROR|CRITICAL|WARNING|INFO)\s+)?"
    r"(?:\[?\d{4}-\d\d-\d\d[ T][\d:.,]+\]?\s*|\d\d-\d\d [\d:]+\s*)?(?:\[[\w./-]+\.py:\d+\]\s*)?"
    r"(?:[\d.]{8,} [EWID] \w*\s+)?(?:TP\d+\]\s*)?"
)
_EXCEPTION = re.compile(r"(?<![\w.])(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): \S")
_HARMLESS = re.compile(r"^(?:\([^)]*pid=\d+\)\s*)?(?:WARNING|INFO|DEBUG)\b")
_INVALID = "Value error, "  # pydantic's line below the name of its exception
# An error that only says that there was another one.
_SECOND_HAND = re.compile(r"See root cause above|Engine core initialization failed|EngineDeadError|WorkerProc init")
_KNOWN = {
    re.compile(
        r"out of memory|OutOfMemory|cannot allocate|failed to allocate|bad_alloc|less than desired"
        r"|No available memory for the cache blocks|larger than the available KV cache",
        re.IGNORECASE,
    ): "free memory, or take a shorter --context or a smaller quantization",
    re.compile(r"address already in use|couldn't bind|failed to bind", re.IGNORECASE): (
        "end the program that listens there, or try again"
    ),
    re.compile(r"unrecognized arguments|invalid argument|no such option", re.IGNORECASE): (
        "leave out the --engine-arg that it does not know"
    ),
}
_ERRORS = re.compile(r"\berror\b.*:|^\S+ E |\bfatal\b", re.IGNORECASE)
_PROGRESS = re.compile(r"(\d{1,3})%")
_LONGEST_FIT = re.compile(r"estimated maximum model length is (\d+)", re.IGNORECASE)


def progress(log: str) -> str:
    """Return the last line that says something, without its time; empty if there is none."""
    return next(filter(None, map(_plain, reversed(log[-8192:].splitlines()))), "")[:SHOWN]


def part_loaded(line: str) -> float | None:
    """Return the part of the weights that a line says is loaded, from 0 to 1; None if it says nothing of that."""
    match = _PROGRESS.search(line)
    return min(int(match[1]), 100) / 100 if match else None


def root_cause(log: str) -> str:
    """Return the line that tells why a start failed, the first cause before what followed; empty if there is no log."""
    raw = [line for line in log.splitlines() if not _HARMLESS.search(_TERMINAL.sub("", line))]
    plain = [_plain(line) for line in raw]
    known = [line for line in plain if any(pattern.search(line) for pattern in _KNOWN)]
    exceptions = [line for line in plain if _EXCEPTION.search(line) and not _SECOND_HAND.search(line)]
    errors = [line for line, text in zip(plain, raw, strict=True) if line and _ERRORS.search(text)]
    invalid = [line for line in plain if line.startswith(_INVALID)]
    return next(filter(None, chain(known, invalid, exceptions, errors, [progress(log)])), "")[:SHOWN]


def hint(cause: str, log: str) -> str:
    """Return what to do about a cause; empty if nothing is known."""
    if longest := _LONGEST_FIT.search(log):
        return f"this is the longest that fits: --context {longest[1]}"
    return next((text for pattern, text in _KNOWN.items() if pattern.search(cause)), "")


def _plain(line: str) -> str:
    return _PREFIX.sub("", _TERMINAL.sub("", line).strip()).strip()
