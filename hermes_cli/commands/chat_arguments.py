"""Arguments of `hermes chat` that need a closer look: model and prompt, LoRA adapters, KV cache types."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.commands.asking import somebody_there
from hermes_cli.console import Voice
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.planning.memory import KV_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

    from hermes_cli.console import Console
    from hermes_cli.engine.embedded.messages import LoraFile
    from hermes_cli.planning.memory import KvType

OWN_PROMPT_HINT = "type it after the model's name, or pipe it in: git diff | hermes chat demo explain"
LORA_EXAMPLE = "for example: --lora adapter.gguf or --lora adapter.gguf:0.5"


def model_and_prompt(words: Sequence[str], *, named: bool, console: Console) -> tuple[str | None, str]:
    """Return the model, if one of the words is it, and the prompt; an empty prompt starts a conversation.

    Args:
        words: of the command line.
        named: the model or an endpoint is named by an option.
        console: where the answer will be shown.

    Raises:
        UsageError: there is no prompt and nobody to talk with, or what was piped in is not text.
    """
    model, rest = _model_and_words(words, named=named)
    text = _with_piped(rest)
    if not text and not _on_terminal(console):
        raise UsageError("there is no prompt.", hint=OWN_PROMPT_HINT)
    return model, text


def _on_terminal(console: Console) -> bool:
    """Return whether a conversation is possible here."""
    return console.voice is Voice.HUMAN and console.out.isatty() and somebody_there()


def _model_and_words(words: Sequence[str], *, named: bool) -> tuple[str | None, Sequence[str]]:
    """The first word is a model, unless there is one, or it holds several words, as only a prompt in quotes does."""
    if named or not words:
        return None, words
    first, *rest = words
    if not first.strip() or (len(first.split()) > 1 and not Path(first).exists()):
        return None, words
    return first, rest


def _with_piped(words: Sequence[str]) -> str:
    """Return the words, with the text that was piped in below them.

    Raises:
        UsageError: what was piped in is not text.
    """
    parts = [" ".join(words).strip()]
    stdin: TextIO | None = sys.stdin  # None when it was closed (`<&-`)
    if stdin is not None and not stdin.isatty():
        try:
            parts.append(stdin.buffer.read().decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input is not text (byte {error.start:,} is not UTF-8).", hint="pipe text, not a binary file."
            ) from None
    return "\n\n".join(part for part in parts if part)


def lora_files(given: Iterable[str]) -> tuple[LoraFile, ...]:
    """Return the adapters given as `PATH` or `PATH:SCALE`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: a scale is not a number.
    """
    return tuple(map(_lora, given))


def _lora(given: str) -> LoraFile:
    from hermes_cli.engine.embedded.messages import LoraFile  # noqa: PLC0415 - only where there are any

    if whole := _lora_path(given):  # a name may have a colon in it
        return LoraFile(whole)
    path, colon, scale = given.rpartition(":")
    file = _lora_path(path) if colon else None
    if file is None:
        raise NotFoundError(f"--lora {given}: there is no such file.", hint=LORA_EXAMPLE)
    number = _scale(scale)
    if number is None:
        raise UsageError(f"--lora {given}: the scale {scale!r} is no number.", hint=LORA_EXAMPLE)
    return LoraFile(file, number)


def _lora_path(given: str) -> Path | None:
    try:
        path = Path(given).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # names that are too long, the home of nobody
        return None


def _scale(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def kv_type_named(name: str | None) -> KvType | None:
    """Return the type of the KV cache with a name; None stays None.

    Raises:
        UsageError: there is no such type.
    """
    kind = next((kind for kind in KV_TYPES if name and kind == name.lower()), None)
    if name is not None and kind is None:
        raise UsageError(f"there is no KV cache type {name}.", hint=f"choose one of: {', '.join(KV_TYPES)}")
    return kind
