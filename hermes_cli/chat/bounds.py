"""What an answer on the command line is held to: a schema from a file or in place, and the tools on offer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hermes_cli.generation import Constraints

EXAMPLE = """a file, or like this: --schema '{"type": "object", "properties": {"name": {"type": "string"}}}'"""


def read_schema(given: str) -> Mapping[str, Any] | bool:
    """A JSON schema from a file, or as it was typed.

    Raises:
        UsageError: there is no such file, or it is no JSON object.
    """
    typed = given.lstrip().startswith("{")
    try:
        text = given if typed else Path(given).expanduser().read_text(encoding="utf-8")
        schema = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"--schema {given}: {reason or error}.", hint=f"give {EXAMPLE}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--schema: this is no JSON: {error}.", hint=f"give {EXAMPLE}") from None
    if not isinstance(schema, dict):
        raise UsageError("--schema: a schema is a JSON object.", hint=f"give {EXAMPLE}")
    return schema


def bounds_for(tools: Sequence[dict[str, Any]], schema: object | None, warn: Callable[[str], None]) -> Constraints:
    """The bounds of every turn; `warn` is told which words of tools cannot be enforced.

    Raises:
        UsageError: the schema or a tool cannot be enforced.
    """
    from hermes_cli.generation import Constraints  # noqa: PLC0415 - 0.1 s of templates, which a schema can be read without

    if schema is None and not tools:
        return Constraints()
    from hermes_cli.prompting.structured_output import json_schema, tool_calls  # noqa: PLC0415 - llguidance

    notes: list[str] = []
    calls = tool_calls(tools, notes=notes) if tools else None
    answer = None if schema is None else json_schema(schema)
    for note in notes:
        warn(note)
    return Constraints(answer, calls)
