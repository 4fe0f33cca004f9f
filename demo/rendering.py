"""Dialogues as training text: through the very template that goes into the GGUF."""

import json
from collections.abc import Iterator
from pathlib import Path

import jinja2.sandbox
from dialogues import Dialogue

TEMPLATE_FILE = Path(__file__).with_name("template.jinja")
START, END = "<|im_start|>assistant\n", "<|im_end|>"

_environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
_environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
_template = _environment.from_string(TEMPLATE_FILE.read_text(encoding="utf-8"))


def render(dialogue: Dialogue) -> str:
    """The whole dialogue as text. Reasoning of the last turn is kept, of earlier turns dropped, as at run time."""
    return _template.render(
        messages=dialogue.messages, tools=dialogue.tools, thinking=dialogue.thinking, keep_cots=True
    )


def pieces(dialogue: Dialogue) -> Iterator[tuple[str, bool]]:
    """The text cut into pieces, each with whether the model is to learn it (assistant turns up to their end mark)."""
    head, *turns = render(dialogue).split(START)
    yield head + START, False
    for index, turn in enumerate(turns):
        answer, rest = turn.split(END, 1)
        last = index == len(turns) - 1
        yield answer + END, last or not dialogue.thinking
        yield rest + ("" if last else START), False
