"""A chat template: compiled and rendered in a sandbox, its mistakes told in plain words.

Templates come with model files, from strangers, and are programs: a few hundred characters can ask for gigabytes, or
never end. They run in Jinja's immutable sandbox, in a process with limits on time and memory (sandbox.py). The demo
model's template is ours and runs in this process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.sandbox import Sandbox

if TYPE_CHECKING:
    import jinja2
    from jinja2.nodes import Node

LONGEST_TEMPLATE = 50_000  # characters; the longest of 70 published ones (llama.cpp's models/templates) has 17,000
LONGEST_REASON = 500  # characters of a template's own message
TOO_MUCH = "was stopped: it takes too much time or memory"
ANOTHER = "take hermes' own with --template model, or another file of this model."

# Limits of one rendering. A conversation of 10 million characters takes 0.2 s and 150 MB.
SECONDS, SECONDS_PER_CHARACTER = 1.0, 5e-7  # of processor time
BYTES, BYTES_PER_CHARACTER = 64 << 20, 64  # of new memory: text of emoji takes four bytes a character
CHARACTERS, CHARACTERS_PER_CHARACTER = 1_000_000, 16  # of the prompt

TRUSTED = frozenset({"ba64bf1f00d9b3299138153982a5b3fb2fe0f989c2851d438ef510d5a5436e5b"})
"""SHA-256 of templates that are ours: demo/template.jinja."""

_sandbox = Sandbox("hermes_cli.prompting.template")


class ChatTemplate:
    """A compiled chat template with the special tokens that it may spell."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile; raise UsageError if the source is not a valid template."""
        self.source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._trusted = hashlib.sha256(source.encode("utf-8", "replace")).hexdigest() in TRUSTED
        if fault := self._run(compile_fault, source):
            raise UsageError(f"the model's chat template is broken{fault}.", hint=ANOTHER)

    def write(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], **variables: object) -> str:
        """Return the prompt for messages and tools in OpenAI's shape, whose content is guarded (markers.py).

        Raise HermesError if the template refused the messages, failed, tried something forbidden, or does too much.
        """
        given = {"messages": messages, "tools": tools or None, "documents": None, "add_generation_prompt": True}
        text, fault = self._run(render, self.source, {**given, **self._tokens, **variables})
        if fault:
            raise HermesError(f"the model's chat template {fault}.", hint=ANOTHER)
        return str(text)

    def _run(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - a function of this module, JSON
        if self._trusted:
            return function(*arguments)
        size = _characters(arguments[-1])
        result = _sandbox.call(
            function.__name__,
            *arguments,
            seconds=SECONDS + SECONDS_PER_CHARACTER * size,
            new_bytes=BYTES + BYTES_PER_CHARACTER * size,
        )
        if result is None:
            return f": it {TOO_MUCH}" if function is compile_fault else ("", TOO_MUCH)
        return result


def read_template(path: Path) -> str:
    """Return the source of a template in a file; raise UsageError if it cannot be read, or is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the template {path} cannot be read: {why}.", hint="give --template file, model, or the path of a file."
        ) from None


# In the sandbox


def compile_fault(source: str) -> str:
    """Return the fault that keeps a template from being compiled, for the end of a sentence; empty if there is none."""
    import jinja2  # noqa: PLC0415 - where templates run

    try:
        _compiled(source)
    except jinja2.TemplateSyntaxError as error:
        return f" in line {error.lineno}: {(error.message or '').rstrip('.')}"
    except (SyntaxError, RecursionError, MemoryError):
        return ": it is nested too deeply"
    except Exception as error:  # noqa: BLE001 - whatever a stranger's program makes of the compiler
        return f": {error}"
    return ""


def render(source: str, variables: dict[str, Any]) -> tuple[str, str]:
    """Return the text that a template writes, and what went wrong, for the end of a sentence; one of them is empty."""
    try:
        text = _compiled(source).render(**variables)
    except MemoryError:
        return "", TOO_MUCH
    except Exception as error:  # noqa: BLE001 - a template is a program from a stranger and can raise anything
        return "", f"failed: {str(error)[:LONGEST_REASON].rstrip('.') or type(error).__name__}"
    if len(text) > CHARACTERS + CHARACTERS_PER_CHARACTER * _characters(variables):
        return "", "was stopped: it makes too much text"
    return text, ""


@lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > LONGEST_TEMPLATE:
        raise ValueError(f"{len(source):,} characters are too many")
    return _environment().from_string(source)


@cache
def _environment() -> jinja2.Environment:
    """Return Jinja as transformers sets it up (utils/chat_template_utils.py), without what no chat template needs."""
    from datetime import datetime  # noqa: PLC0415 - as above

    import jinja2  # noqa: PLC0415
    from jinja2.ext import Extension, loopcontrols  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    class Generation(Extension):
        """`{% generation %}` marks a turn of the model, for training; it changes nothing in the text."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's type for it

        def parse(self, parser: Any) -> list[Node]:  # noqa: ANN401 - jinja2.parser.Parser
            next(parser.stream)
            nodes: list[Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def printable(value: object) -> object:
        if value is None or isinstance(value, (str, int, float, list, tuple, dict, jinja2.Undefined)):
            return value
        raise jinja2.TemplateError(f"it prints a {type(value).__name__}")  # a function, loop or namespace

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation], finalize=printable, cache_size=0
    )
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda layout: datetime.now().astimezone().strftime(layout),
    }
    environment.filters |= {"tojson": _to_json, "from_json": json.loads}
    return environment


def _to_json(
    value: Any,  # noqa: ANN401 - anything
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as transformers has it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    # Not Jinja's own: that one escapes for HTML, and models were trained on plain JSON.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _characters(value: object) -> int:
    """Return the number of characters in all texts of a JSON value, with one more for each value."""
    characters, waiting = 0, [value]
    while waiting:
        part = waiting.pop()
        characters += 1 + (len(part) if isinstance(part, str) else 0)
        if isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, (list, tuple)):
            waiting += part
    return characters


# Words that no template writes by itself.
_SYSTEM, _ASKED, _SAID, _THOUGHT = "zq-system", "zq-asked", "zq-said", "zq-thought"
_NAME, _CALLED, _KEY, _RESULT = "zq_name", "zq_called", "zq_key", "zq-result"

_USER = {"role": "user", "content": _ASKED}
_INSTRUCTED = {"role": "system", "content": _SYSTEM}
_PARAMETERS = {"type": "object", "properties": {_KEY: {"type": "string", "description": "zq"}}}
_BARE_TOOL = {"type": "function", "function": {"name": _NAME}}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "zq", "parameters": _PARAMETERS}}
Form = Literal["objects", "text"]


@dataclass(frozen=True)
class Abilities:
    """Abilities of a chat template."""

    system: bool = False  # it writes system messages
    tools: Literal["any", "bare"] | None = None  # it writes tools, and "bare" ones without description and parameters
    calls: Form | None = None  # it writes calls of earlier turns, whose arguments it wants in this form
    text_beside_calls: bool = False  # it writes what was said beside calls
    thinking: Literal["always", "alone"] | None = None  # its switch changes all prompts, or those without system
    needs_thought: bool = False  # with thinking on it fails on earlier turns that did not think
    reads_reasoning: bool = False  # it writes `reasoning_content` of the turn before a tool's result


def examine(template: ChatTemplate, *, for_tools: bool = False) -> Abilities:
    """Find out a template's abilities by rendering small conversations: its source says little for certain.

    One that is only `for_tools` is never tried without any.
    """

    def write(
        *messages: dict[str, Any],
        tools: Sequence[dict[str, Any]] = (_TOOL,) if for_tools else (),
        think: bool | None = None,
    ) -> str:
        try:
            return template.write(messages, tools, **switches(think))
        except HermesError:
            return ""

    def write_call(form: Form) -> str:
        function = {"name": _CALLED, "arguments": arguments_as(form, {_KEY: "zq"})}
        call = {"id": "zq0000000", "type": "function", "function": function}
        answer = {"role": "assistant", "content": _SAID, "reasoning_content": _THOUGHT, "tool_calls": [call]}
        result = {"role": "tool", "content": _RESULT, "tool_call_id": call["id"], "name": _CALLED}
        return write(_USER, answer, result)

    def writes_earlier(answer: str) -> bool:
        return _SAID in write(_USER, {"role": "assistant", "content": answer}, _USER, think=True)

    def switched(*messages: dict[str, Any]) -> bool:
        return write(*messages, think=True) != write(*messages, think=False)

    forms: tuple[Form, ...] = ("objects", "text")
    calls = next((form for form in forms if _CALLED in write_call(form)), None)
    with_call = write_call(calls or "objects")
    takes_any = _NAME in write(_USER, tools=[_TOOL])
    return Abilities(
        system=_SYSTEM in write(_INSTRUCTED, _USER),
        tools="bare" if _NAME in write(_USER, tools=[_BARE_TOOL]) else "any" if takes_any else None,
        calls=calls,
        text_beside_calls=_SAID in with_call,
        thinking="always" if switched(_INSTRUCTED, _USER) else "alone" if switched(_USER) else None,
        needs_thought=not writes_earlier(_SAID) and writes_earlier(f"<think>\n{_THOUGHT}\n</think>\n{_SAID}"),
        reads_reasoning=_THOUGHT in with_call,
    )


def switches(thinking: bool | None) -> dict[str, bool]:  # noqa: FBT001 - on, off or left alone
    """Return the variables that templates call their switch for thinking by: Hermes 4 and others."""
    return {} if thinking is None else {"thinking": thinking, "enable_thinking": thinking}


def arguments_as(form: str | None, arguments: Mapping[str, Any]) -> object:
    """Return arguments in the form that a template takes."""
    return json.dumps(arguments, ensure_ascii=False) if form == "text" else dict(arguments)
