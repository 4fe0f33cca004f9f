"""The option `--lora`: adapters as paths, each with its scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_cli.engine.embedded.options import LoraFile

EXAMPLE = "for example: --lora adapter.gguf or --lora adapter.gguf:0.5"


def adapters(given: Iterable[str]) -> tuple[LoraFile, ...]:
    """Return the adapters given as `PATH` or `PATH:SCALE`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: a scale is not a number.
    """
    return tuple(map(_adapter, given))


def _adapter(given: str) -> LoraFile:
    from hermes_cli.engine.embedded.options import LoraFile  # noqa: PLC0415 - only where there are any

    if whole := _file(given):  # a name may have a colon in it
        return LoraFile(whole)
    path, colon, scale = given.rpartition(":")
    file = _file(path) if colon else None
    if file is None:
        raise NotFoundError(f"--lora {given}: there is no such file.", hint=EXAMPLE)
    number = _number(scale)
    if number is None:
        raise UsageError(f"--lora {given}: the scale {scale!r} is no number.", hint=EXAMPLE)
    return LoraFile(file, number)


def _file(given: str) -> Path | None:
    try:
        path = Path(given).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # names that are too long, the home of nobody
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
