"""Ollama's Modelfile for a model of the library (github.com/ollama/ollama, parser/parser.go)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import RecommendedSampling
from hermes_cli.store.gotemplate import go_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hermes_cli.catalog.models import CatalogModel

CONTEXT = 16_384  # tokens, as `hermes chat` takes; Ollama's own default may be 4,096, and what is longer is cut there

_WORD = re.compile(r"^[\w./+@=-]+$")


def modelfile(files: Sequence[str], model: CatalogModel | None, context: int | None = None) -> str:
    """The whole file.

    Args:
        files: of the model, relative to the Modelfile.
        model: of the catalogue; None for a file that it does not know, of which Ollama takes the chat template inside.
        context: tokens; by default what the model handles, up to 16,384.
    """
    return "\n".join((*_lines(files, model, context), ""))


def _lines(files: Sequence[str], model: CatalogModel | None, context: int | None) -> Iterator[str]:
    yield from (f"FROM {_quoted('./' + name)}" for name in files)
    template = go_template(model) if model else None
    if template is None:
        yield "# no TEMPLATE: Ollama takes the chat template that is in the file"
    else:
        yield f'TEMPLATE """{template}"""'
    if model:
        yield from (f"PARAMETER stop {json.dumps(text)}" for text in model.prompt.stop)
        if isinstance(model.sampling, RecommendedSampling):
            yield from _sampling(model.sampling)
        yield f"# {model.name} handles {model.context.usable:,} tokens; the more, the more memory is taken"
        context = context or min(CONTEXT, model.context.usable)
    if context:
        yield f"PARAMETER num_ctx {context}"


def _sampling(sampling: RecommendedSampling) -> Iterator[str]:
    names = ("temperature", "top_p", "top_k", "repeat_penalty")
    yield from (f"PARAMETER {name} {value}" for name in names if (value := getattr(sampling, name)) is not None)


def _quoted(name: str) -> str:
    """A word ends at a space unless it is in quotation marks; there are no escapes."""
    return name if _WORD.match(name) else f'"{name}"'
