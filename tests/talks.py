"""Small conversations, and how a family of models reads them."""

from __future__ import annotations

import json
from typing import Any

from hermes_cli.prompting.compose import PromptInput, PromptOptions
from hermes_cli.prompting.families import (
    ALPACA,
    CHATML,
    DEEPHERMES_3,
    HERMES_2_PRO,
    HERMES_3,
    HERMES_4,
    HERMES_4_QWEN,
    Family,
)
from hermes_cli.prompting.normalize import messages, tools
from hermes_cli.prompting.render import OurFormat

BOS = "<|begin_of_text|>"
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
SYSTEM: dict[str, Any] = {"role": "system", "content": "S"}
THOUGHT: dict[str, Any] = {"role": "assistant", "content": "A", "reasoning_content": "Hm."}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}

FAMILIES = [ALPACA, CHATML, HERMES_2_PRO, HERMES_3, DEEPHERMES_3, HERMES_4, HERMES_4_QWEN]
CALLERS = [family for family in FAMILIES if family.tools]
THINKERS = [family for family in FAMILIES if family.reasoning]


def title(family: Family) -> str:
    return family.title


def calling(content: str | None = None, **arguments: object) -> dict[str, Any]:
    """A turn that calls the clock; `RESULT` answers it."""
    written = json.dumps(arguments, separators=(",", ":"))
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": written}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def properties(**given: object) -> dict[str, Any]:
    """A tool with these parameters."""
    parameters = {"type": "object", "properties": given}
    return {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}


def write(
    family: Family,
    given: list[dict[str, Any]],
    offered: list[dict[str, Any]] | None = None,
    **options: Any,  # noqa: ANN401 - those of PromptOptions
) -> str:
    """The prompt as our format has it."""
    return OurFormat(family, BOS).render(PromptInput(messages(given), tools(offered), PromptOptions(**options))).plain
