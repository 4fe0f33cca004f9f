"""Options of a conversation: set by flags at its start, and by slash commands on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - msgspec reads it
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hermes_cli.errors import UsageError

_EXAMPLE = """a file, or like this: --schema '{"type": "object", "properties": {"name": {"type": "string"}}}'"""


@dataclass(frozen=True)
class ChatOptions:
    """Options of every turn. Their names are part of the session format.

    Attributes:
        system: system prompt.
        think: reason before answering or not; None is the model's default.
        think_budget: most tokens of reasoning; None for no limit.
        schema: JSON schema of the answer, or True for any JSON object; None for text.
        sampling: fields of `engine.request.SamplingOptions` that the user sets; the others are as the model recommends.
        max_tokens: most tokens of one turn; None for as many as fit.
        stops: strings that end an answer.
        shift: at the end of the context, drop its older half and go on.
    """

    system: str | None = None
    think: bool | None = None
    think_budget: int | None = None
    schema: Mapping[str, Any] | bool | None = None
    sampling: Mapping[str, float | int] = field(default_factory=dict)
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    shift: bool = False


def read_schema(text_or_path: str) -> Mapping[str, Any]:
    """Return a JSON schema from a file, or as it was typed.

    Raises:
        UsageError: no such file, or not a JSON object.
    """
    typed = text_or_path.lstrip().startswith("{")
    try:
        text = text_or_path if typed else Path(text_or_path).expanduser().read_text(encoding="utf-8")
        schema = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"--schema {text_or_path}: {reason or error}.", hint=f"give {_EXAMPLE}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--schema: this is no JSON: {error}.", hint=f"give {_EXAMPLE}") from None
    if not isinstance(schema, dict):
        raise UsageError("--schema: a schema is a JSON object.", hint=f"give {_EXAMPLE}")
    return schema
