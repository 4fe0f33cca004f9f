"""Messages and tools to prompt text, by the chat template that the model file carries.

Templates are programs from strangers: they run in Jinja's immutable sandbox, with no more than the names that chat
templates need.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.prompting.messages import Message

TEMPLATES = Path(__file__).parent / "templates"


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    # Not Jinja's own: that one escapes for HTML, and models were trained on plain JSON.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_now)
    return environment


def _plain(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: OpenAI's shape, with arguments as an object."""
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return plain


class ChatTemplate:
    """A compiled chat template with the special tokens it may spell."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile.

        Raises:
            UsageError: the source is not a valid template.
        """
        self._takes_tools = "tools" in source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(
                f"the model's chat template is broken in line {error.lineno}: {error.message}.",
                hint="use another file of this model; its template was damaged when it was made.",
            ) from None

    def render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """The prompt up to where the model is to go on.

        Raises:
            UsageError: there are tools and the template takes none.
            HermesError: the template refused these messages or tried something forbidden.
        """
        if tools and not self._takes_tools:
            raise UsageError(
                "this model's chat template takes no tools.",
                hint="leave --tools out, or use a model trained for tool calls.",
            )
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages],
                tools=list(tools) or None,
                add_generation_prompt=True,
                **self._tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, RecursionError) as error:
            raise HermesError(
                f"the model's chat template failed: {error}.",
                hint="try without --system or --tools: not every template takes them.",
            ) from None


def built_in_template(name: str, *, bos: str = "") -> ChatTemplate:
    """One of our own templates (`alpaca`, `chatml`, `llama-3`), for files that carry none and for examples."""
    return ChatTemplate((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"), bos=bos)
