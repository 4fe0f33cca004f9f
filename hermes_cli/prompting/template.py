"""A chat template: compiled once, rendered within limits, its mistakes told in plain words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.limits import Budget, LimitError, spending
from hermes_cli.prompting.operations import as_content
from hermes_cli.prompting.sandbox import environment
from hermes_cli.prompting.text import SourcedText, with_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.prompting.messages import Message

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_REASON = 500  # characters of what a template says when it refuses
ANOTHER = "take hermes' own with --template model, or another file of this model."


class ChatTemplate:
    """A compiled chat template with the special tokens it may spell."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile.

        Raises:
            UsageError: the source is not a valid template.
        """
        self.source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            why = f" in line {error.lineno}: {(error.message or '').rstrip('.')}"
        except (SyntaxError, RecursionError, MemoryError):
            why = ": it is nested too deeply"
        except Exception as error:  # noqa: BLE001 - whatever a stranger's program makes of the compiler
            why = f": {error}"
        else:
            return
        raise UsageError(f"the model's chat template is broken{why}.", hint=ANOTHER)

    def write(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], **variables: object
    ) -> SourcedText:
        """The prompt for messages in OpenAI's shape; strings in them that are no `SourcedText` count as content.

        Raises:
            HermesError: the template refused these messages, failed, tried something forbidden, or does too much.
        """
        given = {"messages": [_marked(one) for one in messages], "tools": as_content(tools) or None, "documents": None}
        try:
            with spending(Budget.for_input(given)):
                text = self._template.render(**given, **self._tokens, **variables, add_generation_prompt=True)
        except LimitError as error:
            what = f"was stopped: {error}"
        except Exception as error:  # noqa: BLE001 - a template is a program from a stranger and can raise anything
            what = f"failed: {str(error)[:LONGEST_REASON].rstrip('.') or type(error).__name__}"
        else:
            return text if isinstance(text, SourcedText) else SourcedText(text, b"\0" * len(text))
        raise HermesError(f"the model's chat template {what}.", hint=ANOTHER)

    def render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> SourcedText:
        """The prompt up to where the model is to go on, by the template alone.

        Raises:
            UsageError: there are tools and the template takes none.
            HermesError: as `write`.
        """
        if tools and "tools" not in self.source:
            raise UsageError(
                "this model's chat template takes no tools.",
                hint="leave --tools out, or use a model trained for tool calls.",
            )
        return self.write([plain_message(one) for one in messages], tools)


def plain_message(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: OpenAI's shape, arguments as an object, and always a text."""
    plain: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        plain |= {"tool_call_id": message.tool_call_id or "", "name": message.name or ""}
    return plain


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    """Every string but role and keys is content; tags count in system prompts and in what the model said."""
    mark = with_tags if message["role"] in {"system", "assistant"} else SourcedText
    marked = {key: as_content(value) for key, value in message.items() if key not in {"role", "content"}}
    return {"role": message["role"], "content": as_content(message["content"], mark), **marked}


def read_template(path: Path) -> str:
    """The source of a template in a file.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the template {path} cannot be read: {why}.", hint="give --template file, model, or the path of a file."
        ) from None


@cache
def built_in_template(name: str, *, bos: str = "") -> ChatTemplate:
    """One of our own templates (`alpaca`, `chatml`, `llama-3`)."""
    return ChatTemplate((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"), bos=bos)
