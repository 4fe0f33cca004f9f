"""Prompt formats as Go templates, which is what Ollama takes.

What `.System`, `.Messages` and `.Tools` hold, and how Ollama reads the tags of tool calls and of thoughts off a
template, is in its folders template/, tools/ and thinking/; `.Think` and `.Thinking` need Ollama 0.9. Its `.System` is
all system messages together, so the loop over the messages leaves theirs out. The last turn is left open for the model.

The words about tools and thinking are those of the models' own chat templates and cards: the long ones with the schema
of a call for Hermes 2 Pro, Theta, Hermes 3 and DeepHermes 3, the short ones for Hermes 4.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.catalog.models import CatalogModel

SHORT_TOOLS = {"Hermes 4", "Hermes 4.3"}  # generations
# What the chat templates of these generations say when the user gives no system message.
USUAL_SYSTEM = {
    "Hermes 3": "You are a helpful assistant.",
    "Hermes 4": "You are Hermes, created by Nous Research.",
    "Hermes 4.3": "You are Hermes, created by Nous Research.",
}
DEEP_THINKING = (
    "You are a deep thinking AI, you may use extremely long chains of thought to deeply consider the problem and "
    "deliberate with yourself via systematic reasoning processes to help come to a correct solution prior to "
    "answering. You should enclose your thoughts and internal monologue inside <think> </think> tags, and then "
    "provide your solution or response to the problem."
)

ALPACA = """\
{{- if .System }}{{ .System }}

{{ end }}{{ range .Messages }}{{ if eq .Role "user" }}### Instruction:
{{ .Content }}

{{ else if eq .Role "assistant" }}### Response:
{{ .Content }}

{{ end }}{{ end }}### Response:
"""

# All that follows is ChatML, which `_as_llama_3` rewrites. A line break after `{{ end }}` goes where `{{-` follows.
LONG_PREAMBLE = """\
{{- if .Tools }}<|im_start|>system
You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. \
You may call one or more functions to assist with the user query. Don't make assumptions about what values to plug \
into functions. Here are the available tools: <tools> {{ range $index, $tool := .Tools }}{{ if $index }}
{{ end }}{{ $tool }}{{ end }} </tools>\
Use the following pydantic model json schema for each tool call you will make: \
{"properties": {"name": {"title": "Name", "type": "string"}, "arguments": {"title": "Arguments", "type": "object"}}, \
"required": ["name", "arguments"], "title": "FunctionCall", "type": "object"}
For each function call return a json object with function name and arguments within <tool_call></tool_call> XML tags \
as follows:
<tool_call>
{"name": <function-name>, "arguments": <args-dict>}
</tool_call><|im_end|>
{{ end }}"""
SHORT_PREAMBLE = """\
{{- if .Tools }}

# Tools

You are a function calling AI model. You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{{- range .Tools }}
{{ . }}
{{- end }}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": "<function-name>", "arguments": <args-json-object>}
</tool_call>
{{- end }}"""
THINK_FIRST = "{{ if .Think }}" + DEEP_THINKING + "{{ if .System }}\n\n{{ end }}{{ end }}"
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


def go_template(model: CatalogModel) -> str | None:
    """The model's prompt format for Ollama; None if no source says what it is."""
    match model.prompt.format:
        case "alpaca":
            return ALPACA
        case "chatml":
            return _system(model) + _messages(model)
        case "llama-3":
            return _as_llama_3(_system(model) + _messages(model))
        case "unknown":
            return None


def _system(model: CatalogModel) -> str:
    """The system turn. Asked to think, the model is told so before everything else."""
    usual = USUAL_SYSTEM.get(model.generation, "")
    short = model.generation in SHORT_TOOLS
    text = (THINK_FIRST if model.reasoning else "") + "{{ .System }}"
    if usual:
        unless = "{{ if not (or .System .Think) }}" if model.reasoning else "{{ if not .System }}"
        text += unless + usual + "{{ end }}"
    turn = f"<|im_start|>system\n{text}{SHORT_PREAMBLE if model.tools and short else ''}<|im_end|>\n"
    if not usual:
        needed = "{{ if or .System .Think }}" if model.reasoning else "{{ if .System }}"
        turn = needed + turn + "{{ end }}"
    return (LONG_PREAMBLE if model.tools and not short else "") + turn


def _messages(model: CatalogModel) -> str:
    pieces = {
        "THOUGHTS": THOUGHTS if model.reasoning else "",
        "CALLS": CALLS if model.tools else "",
        "RESULTS": RESULTS.replace("ROLE", "user" if model.generation in SHORT_TOOLS else "tool")
        if model.tools
        else "",
    }
    text = MESSAGES
    for name, piece in pieces.items():
        text = text.replace(name, piece)
    return text


def _as_llama_3(chatml: str) -> str:
    return _TURN.sub(r"<|start_header_id|>\1<|end_header_id|>\n\n", chatml).replace("<|im_end|>\n", "<|eot_id|>")
