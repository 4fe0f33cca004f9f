"""What people type who know other programs: understood where its meaning is clear, else answered with what to type.

The words are those of Ollama, llama.cpp, pip, git and the like. Typer's own errors are told in our voice as well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import typer

from hermes_cli.errors import HermesError, NotFoundError, UsageError

# Another program's word: our command.
COMMANDS = {
    "run": ["chat"],
    "ask": ["chat"],
    "info": ["show"],
    "inspect": ["show"],
    "download": ["pull"],
    "get": ["pull"],
    "fetch": ["pull"],
    "remove": ["rm"],
    "delete": ["rm"],
    "uninstall": ["rm"],
    "ls": ["list"],
    "models": ["list"],
    "find": ["search"],
    "outdated": ["list", "--updates"],
    "benchmark": ["bench"],
    "kill": ["stop"],
    "settings": ["config"],
    "unload": ["stop"],
    "status": ["ps"],
    "version": ["--version"],
    "-V": ["--version"],
}
# A word that we have nothing for, and the next step.
ANSWERS = {
    "logs": "hermes serve writes its log to its own terminal, or in the background to a file that hermes ps shows",
    "update": "new files of models: hermes list --updates; the catalogue: hermes catalog refresh; "
    "hermes itself: pip install --upgrade hermes-llm",
    "upgrade": "hermes itself: pip install --upgrade hermes-llm; new files of models: hermes list --updates",
    "login": "for the Hub: hf auth login",
    "create": "any GGUF file can be used as it is: hermes chat ./model.gguf --system TEXT",
    "push": "publish files with huggingface_hub: hf upload",
    "cp": "make links for another program: hermes export NAME --to DIR",
    "quantize": "all published quantizations: hermes show NAME; your own: llama.cpp's llama-quantize",
    "convert": "llama.cpp's convert_hf_to_gguf.py makes a GGUF file; then: hermes chat ./model.gguf",
}
# Another program's option: ours, with its value.
OPTIONS = {
    "--temp": "--temperature",
    "--num-ctx": "--context",
    "--num_ctx": "--context",
    "--ctx-size": "--context",
    "--n-ctx": "--context",
    "--max-model-len": "--context",
    "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers",
    "--num-predict": "--max-tokens",
    "--n-predict": "--max-tokens",
    "--cache-type-k": "--kv-type",
    "-ctk": "--kv-type",
    "--system-prompt": "--system",
    "--json-schema": "--schema",
    "--purpose": "--for",
}
OPTION_ANSWERS = {
    "-p": 'the prompt needs no option: hermes chat NAME "PROMPT"',
    "--prompt": 'the prompt needs no option: hermes chat NAME "PROMPT"',
    "--format": 'for any JSON object: --schema \'{"type": "object"}\'; a file or a schema of your own goes there, too',
    "--image": "these models read and write text",
    "--images": "these models read and write text",
    "--stream": "answers are always shown as they come; leave it out",
    "-d": "hermes serve NAME --background",
    "-v": "--verbose shows llama.cpp's log; --version the versions",
}
_COUNT = re.compile(r"[+-]?\d[\d,._]*[kKmM]?")


def understood(arguments: Sequence[str]) -> list[str]:
    """Return the command line in our words.

    Raises:
        UsageError: the context length was given to `-c`, which goes on with a conversation.
    """
    words = list(arguments)
    if words and words[0] == "help":
        words = [*words[1:2], "--help"]
    if words and words[0] in COMMANDS:
        words = [*COMMANDS[words[0]], *words[1:]]
    elif words and _is_question(words[0]):
        words = ["chat", *words]
    end = words.index("--") if "--" in words else len(words)
    for at, word in enumerate(words[:end]):
        option, equals, value = word.partition("=")
        words[at] = f"{OPTIONS.get(option, option)}{equals}{value}"
        if word == "-c" and words[0] == "chat" and _COUNT.fullmatch(words[at + 1] if at + 1 < end else ""):
            raise UsageError(
                f"-c goes on with the latest conversation, and {words[at + 1]} would be a part of the question.",
                hint=f"the context length is --context {words[at + 1]}",
            )
    return words


def _is_question(word: str) -> bool:
    """Return whether a first word is a question for the default model: a text in quotes."""
    return len(word.split()) > 1 and not word.startswith("-")


def answer(error: Any, commands: Sequence[str]) -> HermesError | None:  # noqa: ANN401 - Typer's classes are private
    """Return our error for one of Typer's; None for the help that it shows where nothing was typed."""
    kind, context = type(error).__name__, error.ctx
    path = context.command_path if context else "hermes"
    hint = f"see what there is: {path} --help"
    if kind == "NoArgsIsHelpError":
        return None
    if kind == "NoSuchOption":
        near = sorted(error.possibilities or ())
        hint = OPTION_ANSWERS.get(error.option_name) or (f"did you mean {' or '.join(near)}?" if near else hint)
        return UsageError(f"{path} has no option {error.option_name}.", hint=hint)
    if match := re.match(r"No such command '(.*?)'", error.message, re.DOTALL):
        is_root = context.parent is None
        return _unknown_command(
            match[1], commands if is_root else list(context.command.commands), path, is_root=is_root
        )
    return UsageError(_reason(error, kind, path), hint=_example(error, kind) or hint)


def _reason(error: Any, kind: str, path: str) -> str:  # noqa: ANN401 - as above
    parameter = getattr(error, "param", None)
    if match := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.message, re.DOTALL):
        return f"{path} has no use for {match[1]}."
    if parameter is None:
        return str(error.format_message())
    if kind == "MissingParameter":
        return f"{path} needs {_shown(parameter)}."
    return f"{_shown(parameter)}: {plain_words(error.message)}"


def plain_words(message: str) -> str:
    """Return what Typer says of a value, with its words for kinds of numbers in plain ones."""
    for theirs, ours in (("int range", "whole number"), ("float range", "number"), ("integer", "whole number")):
        message = message.replace(f" valid {theirs}", f" {ours}")
    return message.replace(" valid float", " number").rstrip(".") + "."


def _example(error: Any, kind: str) -> str | None:  # noqa: ANN401 - as above
    """Return how the command is typed, where something is missing."""
    if kind != "MissingParameter":
        return None
    usage = error.ctx.get_usage().removeprefix("Usage: ").replace("[OPTIONS] ", "")
    return "type it like this: " + re.sub(r"[{}]", "", usage)


def _unknown_command(name: str, commands: Sequence[str], path: str, *, is_root: bool) -> HermesError:
    if is_root and name in ANSWERS:
        return NotFoundError(f"{path} has no command {name}.", hint=ANSWERS[name])
    import difflib

    near = difflib.get_close_matches(name, commands, n=2)
    if near:
        hint = f"did you mean {' or '.join(f'{path} {command}' for command in near)}?"
    elif is_root:
        hint = f"if it is a model: {path} chat {shlex.quote(name)}; all commands: {path} --help"
    else:
        hint = f"see what there is: {path} --help"
    return NotFoundError(f"{path} has no command {name[:80]}.", hint=hint)


def _shown(parameter: Any) -> str:  # noqa: ANN401 - as above
    if parameter.param_type_name == "argument":
        return str(parameter.make_metavar(None) if parameter.metavar is None else parameter.metavar)
    return str(max(parameter.opts, key=len))


TYPER_ERROR: Any = typer.BadParameter.__bases__[0]
"""Typer's class of all errors about what was typed, which has no public name."""
