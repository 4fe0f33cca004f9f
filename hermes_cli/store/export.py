"""Export a model of the library to other programs, by links in the layout that each expects."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.catalog.file_names import sibling_names
from hermes_cli.errors import HermesError, NotFoundError
from hermes_cli.gguf.header import read_header
from hermes_cli.prompting.families import THINKING_PROMPT, Family, family_of, tools_prompt
from hermes_cli.store.disk import LinkKind, link_errors, link_file
from hermes_cli.store.other_tools import lm_studio_models

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel

MODELFILE = "Modelfile"
IMPORTED = "imported"  # the owner, in LM Studio's layout, of files that are not from the Hub

_REPO = re.compile(r"^([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*)\Z")
_OTHER = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class ExportSource:
    """A model to export."""

    name: str  # on the command line
    files: tuple[Path, ...]  # all its shards, in order
    repo: str | None  # its repository on the Hub, None if it has none
    model: CatalogModel | None  # of the catalogue, None if it is not listed there


@dataclass(frozen=True)
class Exported:
    """The files that were made, each with the kind of link, and the Modelfile if there is one."""

    folder: Path
    files: tuple[tuple[Path, LinkKind], ...]
    modelfile: Path | None = None


def shards(path: Path) -> tuple[Path, ...]:
    """Return all shards of the model that begins with this file.

    Raises:
        InvalidGGUFError: it is not GGUF.
        NotFoundError: a shard is missing.
    """
    split = read_header(path).split
    if split is None:
        return (path,)
    files = tuple(path.with_name(name) for name in sibling_names(path.name, split.count))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise NotFoundError(
            f"{path.name} has {split.count} shards, and {', '.join(missing[:3])} is missing.",
            hint="see what is here: hermes list --installed",
        )
    return files


def to_folder(source: ExportSource, folder: Path, *, copy: bool) -> Exported:
    """Link all files into a folder, under their own names."""
    targets = [folder / path.name for path in source.files]
    kinds = [link_file(path, target, copy=copy) for path, target in zip(source.files, targets, strict=True)]
    return Exported(folder, tuple(zip(targets, kinds, strict=True)))


def to_lm_studio(source: ExportSource, models: Path | None, *, copy: bool) -> Exported:
    """Link all files into LM Studio's folder of models, or into another one of its layout: OWNER/REPOSITORY/FILE."""
    match = source.repo and _REPO.match(source.repo)
    owner, name = (match[1], match[2]) if match else (IMPORTED, plain_name(source.files[0].stem))
    return to_folder(source, (models or lm_studio_models()) / owner / name, copy=copy)


def to_ollama(source: ExportSource, folder: Path, context: int | None, *, copy: bool) -> Exported:
    """Link all files into a folder and write the Modelfile that `ollama create` reads."""
    target = folder / MODELFILE
    text = modelfile([path.name for path in source.files], source.model, context)
    is_new = not target.is_symlink() and not target.exists()
    with link_errors(target):
        if not is_new and (not target.exists() or target.read_text(encoding="utf-8", errors="replace") != text):
            raise HermesError(
                f"{target} already exists, and is another file.", hint="choose another folder: --into FOLDER"
            )
    exported = to_folder(source, folder, copy=copy)
    if is_new:
        with link_errors(target), target.open("x", encoding="utf-8") as file:
            file.write(text)
    return Exported(folder, exported.files, target)


def plain_name(name: str) -> str:
    """Return a name that is valid for a folder and for a model of Ollama: `hermes-3:8b` -> `hermes-3-8b`."""
    return _OTHER.sub("-", name.lower()).strip("-._") or "model"


# Ollama's Modelfile (github.com/ollama/ollama, parser/parser.go), with the prompt format as a Go template. Ollama's
# folders template/, tools/ and thinking/ say which variables a template has (`.System`, `.Messages`, `.Tools`), and how
# the tags of tool calls and of thoughts are read off it; `.Think` and `.Thinking` need Ollama 0.9. Its `.System` is all
# system messages together, so the loop over the messages leaves theirs out. The last turn is open for the model.

CONTEXT = 16_384  # tokens, as `hermes chat` takes; Ollama's own default may be 4,096, and longer prompts are cut there

ALPACA = """\
{{- if .System }}{{ .System }}

{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}### Instruction:
{{ .Content }}

{{ else if eq .Role "assistant" }}### Response:
{{ .Content }}

{{ end }}{{ end }}### Response:
"""

# All that follows is ChatML, which `go_template` rewrites for Llama 3. A line break after `{{ end }}` goes where `{{-`
# follows.
_TOOLS = "{{ range $index, $tool := .Tools }}{{ if $index }}\n{{ end }}{{ $tool }}{{ end }}"
TOOLS_3 = f"{{{{- if .Tools }}}}<|im_start|>system\n{tools_prompt(3, _TOOLS)}<|im_end|>\n{{{{ end }}}}"
TOOLS_4 = f"{{{{- if .Tools }}}}\n\n{tools_prompt(4, _TOOLS)}{{{{- end }}}}"
THOUGHTS = "{{ if and $last .Thinking }}<think>{{ .Thinking }}</think>\n{{ end }}"
# Ollama takes the first text after the first `if .ToolCalls` for the tag that begins a call.
CALLS = """\
{{ if and .Content (len .ToolCalls) }}
{{ end }}{{ if .ToolCalls }}{{ range $number, $call := .ToolCalls }}<tool_call>
{"name": "{{ $call.Function.Name }}", "arguments": {{ $call.Function.Arguments }}}
</tool_call>{{ if gt (len (slice $message.ToolCalls $number)) 1 }}
{{ end }}{{ end }}{{ end }}"""
# Results that follow each other share a turn.
RESULTS = """\
{{ else if eq .Role "tool" }}{{ if ne $before "tool" }}<|im_start|>ROLE
{{ end }}<tool_response>
{{ .Content }}
</tool_response>{{ if $last }}<|im_end|>
{{ else if ne (index $rest 1).Role "tool" }}<|im_end|>
{{ else }}
{{ end }}"""
MESSAGES = """\
{{ $before := "" }}
{{- range $index, $message := .Messages }}
{{- $rest := slice $.Messages $index }}
{{- $last := eq (len $rest) 1 }}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
THOUGHTS{{ .Content }}CALLS{{ if not $last }}<|im_end|>
{{ end }}RESULTS{{ end }}
{{- if and $last (ne .Role "assistant") }}<|im_start|>assistant
{{ end }}
{{- $before = .Role }}
{{- end }}"""

_TURN = re.compile(r"<\|im_start\|>(\w+)\n")
_BARE_WORD = re.compile(r"^[\w./+@=-]+\Z")


def modelfile(
    files: Sequence[str],  # of the model, relative to the Modelfile
    # of the catalogue; None for another file, of which Ollama takes the chat template inside
    model: CatalogModel | None,
    context: int | None = None,  # tokens; by default what the model handles, up to 16,384
) -> str:
    """Return the Modelfile."""
    # A word with spaces is in quotation marks; there are no escapes.
    lines = [f"FROM ./{name}" if _BARE_WORD.match(name) else f'FROM "./{name}"' for name in files]
    template = go_template(model) if model else None
    if template is None:
        lines.append("# no TEMPLATE: Ollama takes the chat template that is in the file")
    else:
        lines.append(f'TEMPLATE """{template}"""')
    if model:
        lines += [f"PARAMETER stop {json.dumps(text)}" for text in model.prompt.stop]
        for name in ("temperature", "top_p", "top_k", "repeat_penalty"):
            if (value := getattr(model.sampling, name, None)) is not None:  # the sampling may be unknown
                lines.append(f"PARAMETER {name} {value}")
        lines.append(f"# {model.name} handles {model.context.usable:,} tokens; the more, the more memory is taken")
        context = context or min(CONTEXT, model.context.usable)
    if context:
        lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join((*lines, ""))


def go_template(model: CatalogModel) -> str | None:
    """Return the model's prompt format for Ollama, None if it is not known."""
    family = family_of(model)
    if family is None:
        return None
    if family.markup == "alpaca":
        return ALPACA
    results = RESULTS.replace("ROLE", "tool" if family.tools == 3 else "user")  # noqa: PLR2004 - a generation
    messages = MESSAGES.replace("THOUGHTS", THOUGHTS if family.reasoning else "")
    messages = messages.replace("CALLS", CALLS if family.tools else "")
    chatml = _system(family) + messages.replace("RESULTS", results if family.tools else "")
    if family.markup == "chatml":
        return chatml
    return _TURN.sub(r"<|start_header_id|>\1<|end_header_id|>\n\n", chatml).replace("<|im_end|>\n", "<|eot_id|>")


def _system(family: Family) -> str:
    """Return the system turn. Where thinking is asked for, its prompt comes before everything else."""
    text = "{{ .System }}"
    if family.reasoning:
        text = "{{ if .Think }}" + THINKING_PROMPT + "{{ if .System }}\n\n{{ end }}{{ end }}" + text
    if family.identity:
        unless = "{{ if not (or .System .Think) }}" if family.reasoning else "{{ if not .System }}"
        text += unless + family.identity + "{{ end }}"
    turn = f"<|im_start|>system\n{text}{TOOLS_4 if family.tools == 4 else ''}<|im_end|>\n"  # noqa: PLR2004 - a generation
    if not family.identity:
        needed = "{{ if or .System .Think }}" if family.reasoning else "{{ if .System }}"
        turn = needed + turn + "{{ end }}"
    return (TOOLS_3 if family.tools == 3 else "") + turn  # noqa: PLR2004 - a generation
