"""Words of other programs on the command line: understood where the meaning is clear, else answered with what to type.

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
    "install": ["pull"],
    "fetch": ["pull"],
    "remove": ["rm"],
    "delete": ["rm"],
    "uninstall": ["rm"],
    "ls": ["list"],
    "models": ["list"],
    "tags": ["list"],
    "-m": ["chat", "-m"],
    "--model": ["chat", "-m"],
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
# Another program's word for a command of one of ours.
_REMOVE = {"delete": "rm", "remove": "rm", "ls": "list"}
SUBCOMMANDS = {
    "sessions": _REMOVE,
    "catalog": {"update": "refresh"},
    "engine": {**_REMOVE, "uninstall": "rm"},
    "config": {"show": "list", "ls": "list", "delete": "unset", "remove": "unset", "rm": "unset"},
    "service": {"list": "status", "ls": "status", "uninstall": "remove", "rm": "remove", "delete": "remove"},
}
_NEWER = "git pull in its checkout, then install it again as before: pipx install --force ."
_LOGS = "hermes serve writes its log to its own terminal, or in the background to a file that hermes ps shows"
_SERVER = "start a server: hermes serve NAME --background; see it with hermes ps, stop it with hermes stop"
# A word that we have nothing for, and the next step.
ANSWERS = {
    "log": _LOGS,
    "logs": _LOGS,
    "server": _SERVER,
    "daemon": _SERVER,
    "load": "a model is loaded when it is used: hermes chat NAME, or hermes serve NAME",
    "update": "see newer files of models: hermes list --updates; update the catalogue: hermes catalog refresh; "
    f"hermes itself: {_NEWER}",
    "upgrade": f"to update hermes itself: {_NEWER}; to see newer files of models: hermes list --updates",
    "start": "serve a model: hermes serve NAME; talk with one: hermes chat NAME",
    "init": "nothing has to be set up: hermes recommend, then hermes pull, then hermes chat",
    "setup": "nothing has to be set up: hermes recommend, then hermes pull, then hermes chat",
    "embed": "a server makes embeddings, at /v1/embeddings: hermes serve NAME",
    "exit": "hermes ends by itself after each command; a chat ends with /bye",
    "quit": "hermes ends by itself after each command; a chat ends with /bye",
    "create": "any GGUF file can be used as it is: hermes chat ./model.gguf --system TEXT",
    "push": "publish files with huggingface_hub: hf upload",
    "cp": "make links for another program: hermes export NAME --to DIR",
    "quantize": "all published quantizations: hermes show NAME; your own: llama.cpp's llama-quantize",
    "convert": "llama.cpp's convert_hf_to_gguf.py makes a GGUF file; then: hermes chat ./model.gguf",
}
# The next step after a word that is no command of another command.
SUBCOMMAND_ANSWERS = {
    "service start": "install starts it, too: hermes service install NAME; see it: hermes service status",
    "service stop": "stop it: hermes stop; take it away for good: hermes service remove",
    "service restart": "hermes service install NAME starts it anew",
    "sessions rename": "save it under another name in the chat: hermes chat --resume NAME, then /save NEW",
    "sessions clear": "remove each that you name: hermes sessions rm NAME",
    "service": "install one: hermes service install NAME",
    "engine": "use one that is here: hermes chat NAME --engine vllm, or hermes serve NAME --engine vllm",
    "sessions": "show one: hermes sessions show NAME; go on with one: hermes chat --resume NAME",
    "config": "set a value: hermes config set NAME VALUE; take a preset: hermes chat --preset NAME",
}
# Another program's option: ours, with its value.
OPTIONS = {
    "--temp": "--temperature",
    "--num-ctx": "--context",
    "--num_ctx": "--context",
    "--ctx-size": "--context",
    "--ctx": "--context",
    "--n-ctx": "--context",
    "--context-length": "--context",
    "--listen": "--host",
    "--parallel": "--slots",
    "--n-parallel": "--slots",
    "-np": "--slots",
    "-t": "--threads",
    "--quantization": "--quant",
    "--max-new-tokens": "--max-tokens",
    "--max-model-len": "--context",
    "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers",
    "--num-predict": "--max-tokens",
    "--n-predict": "--max-tokens",
    "--cache-type-k": "--kv-type",
    "-ctk": "--kv-type",
    "-tp": "--tensor-parallel-size",
    "-a": "--all",
    "--system-prompt": "--system",
    "--json-schema": "--schema",
    "--purpose": "--for",
    "--predict": "--max-tokens",
    "-sys": "--system",
    "--sys": "--system",
    "-hf": "-m",
    "-hfr": "-m",
    "--hf-repo": "-m",
    "-fa": "--flash-attn",
    "-cnv": "--conversation",
    "--local": "--installed",
    "--mac": "--apple",
    "--cpu": "--cpu-only",
    "--bg": "--background",
    "--detach": "--background",
    "--daemon": "--background",
    "--no-gpu": "--cpu-only",
}
# Letters that mean something else in other commands.
COMMAND_OPTIONS = {
    "chat": {"-n": "--max-tokens", "-s": "--seed"},
    "serve": {"-c": "--context", "-d": "--background", "-p": "--port"},
    "stop": {"-9": "--force", "-f": "--force", "-a": "--all"},
    "plan": {"-c": "--context"},
    "recommend": {"-c": "--context"},
}
_TALKS = "without a prompt you stay and talk; leave it out: hermes chat NAME"
_PARALLEL = (
    "vLLM has it: --engine vllm --engine-arg=--tensor-parallel-size --engine-arg=N; "
    "in llama.cpp --tensor-split says how GPUs share the layers"
)
# The next step after an option that there is not; those of one command begin with its name.
OPTION_ANSWERS = {
    "serve --stop": "stop a server that runs: hermes stop",
    "ps --all": "every server of yours is listed; leave it out",
    "login --key": "type the key when it is asked for, or pipe it in: hermes login SERVICE < FILE",
    "hardware --gpu": "plan for another GPU: hermes recommend --gpu NAME",
    "chat -o": "write the answer into a file: > answer.txt",
    "chat --output": "write the answer into a file: > answer.txt",
    "chat --demo": "the demo is a model: hermes chat demo",
    "rm --all": "name each: hermes rm NAME NAME; what is here: hermes list --installed",
    "--tensor-parallel-size": _PARALLEL,
    "--tensor-parallel": _PARALLEL,
    "-i": _TALKS,
    "--interactive": _TALKS,
    "--conversation": _TALKS,
    "--flash-attn": "flash attention is on by itself; leave it out",
    "--jinja": "each model gets its own prompt format by itself; leave it out",
    "--cpu-only": "--gpu-layers 0 puts no layer on a GPU",
    "--memory": "--ram SIZE is the memory of the machine, --vram SIZE that of a GPU",
    "--gpus": "say which: --gpu '2xRTX 4090'",
    "--quant": "the quantization is a part of the name: hermes-3:8b:Q4_K_M",
    "--license": "hermes show NAME tells the licence, too",
    "-p": 'the prompt needs no option: hermes chat NAME "PROMPT"',
    "--prompt": 'the prompt needs no option: hermes chat NAME "PROMPT"',
    "--format": 'for any JSON object: --schema \'{"type": "object"}\'; a file or a schema of your own goes there, too',
    "--image": "these models read and write text",
    "--images": "these models read and write text",
    "--stream": "answers are always shown as they come; leave it out",
    "--no-stream": "answers are always shown as they come; into a file: > answer.txt; as one document: --json",
    "--keep-alive": "a chat keeps its model until it ends; hermes serve has --keep-alive",
    "--modelfile": "hermes export NAME --to ollama writes one",
    "--fix": "each problem that doctor finds comes with the command that mends it",
    "--gpu": "--devices says which GPUs to use, --gpu-layers how much of the model they get",
    "-d": "hermes serve NAME --background",
    "-v": "--verbose shows llama.cpp's log; --version the versions",
}
# Typer's words for numbers, in plain ones; the longer ones come first.
_NUMBERS = {
    "valid integer range": "whole number",
    "valid int range": "whole number",
    "valid integer": "whole number",
    "valid int": "whole number",
    "valid float range": "number",
    "valid float": "number",
}
_MODEL_IS_A_WORD = ("serve", "pull", "plan", "show")  # and needs no option
MUCH_ALIKE = 0.75  # of 1, what difflib gives for words that differ in a letter or two
_ALL_LAYERS = "-1"
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
_COUNT = re.compile(r"[+-]?\d[\d,._]*[kKmM]?")
# What a value with a blank looks like that had no quotes: --gpu RTX 4090, --vram 24 GB.
_GPU_START = re.compile(
    r"((?<!\d)\d+ ?x ?)?(nvidia|geforce|rtx|gtx|quadro|tesla|amd|radeon|rx|instinct|intel|arc|apple)", re.IGNORECASE
)
_GPU_PART = re.compile(
    r"(geforce|radeon|rtx|gtx|rx|pro|arc|max|ultra|ti|super|xtx?|gre|ada|[a-z]{0,3}\d{1,5}[a-z]{0,3})", re.IGNORECASE
)
_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)
_UNIT = re.compile(r"g(i?b)?", re.IGNORECASE)
_SIZES = ("--vram", "--ram", "--apple", "--reserve")


def understood(arguments: Sequence[str]) -> list[str]:
    """Return the command line in our words.

    Raise UsageError if the context length was given to `-c`, which goes on with a conversation.
    """
    words = list(arguments)
    if words and words[0] in {"help", "--help", "-h"}:
        words = [*words[1:2], "--help"]
    if words[:1] == ["--install-completion"] and len(words) > 1 and words[1] not in _SHELLS:
        raise UsageError(
            f"there is no completion for {words[1]}.",
            hint="in bash, zsh, fish or PowerShell: hermes --install-completion",
        )
    if words and words[0] in COMMANDS:
        words = [*COMMANDS[words[0]], *words[1:]]
    elif words and _is_question(words[0]):
        words = ["chat", *words]
    words = _our_subcommand(words)
    if words and words[0] in _MODEL_IS_A_WORD:
        words = [word for word in words if word not in {"-m", "--model", "-hf", "-hfr", "--hf-repo"}]
    words = _with_whole_values(words)
    end = words.index("--") if "--" in words else len(words)
    for at in range(end):
        word = words[at]
        words[at] = _our_option(word, words[0])
        if words[at] == "--gpu-layers" and words[at + 1 : at + 2] == ["all"]:
            words[at + 1] = _ALL_LAYERS
        if word == "-c" and words[0] == "chat" and _COUNT.fullmatch(words[at + 1] if at + 1 < end else ""):
            raise UsageError(
                f"-c goes on with the latest conversation, and {words[at + 1]} would be a part of the question.",
                hint=f"the context length is --context {words[at + 1]}",
            )
    return words


def _our_subcommand(words: list[str]) -> list[str]:
    """Return the words with another program's second word in ours; `config set KEY=VALUE` is KEY VALUE."""
    match words:
        case ["config", "set", setting] if "=" in setting:
            return ["config", "set", *setting.split("=", 1)]
        case [command, word, *rest]:
            return [command, SUBCOMMANDS.get(command, {}).get(word, word), *rest]
        case _:
            return words


def _our_option(word: str, command: str) -> str:
    option, equals, value = word.partition("=")
    option = COMMAND_OPTIONS.get(command, {}).get(option) or OPTIONS.get(option, option)
    if option.startswith("--"):
        option = option.replace("_", "-")
    return f"{option}{equals}{value}"


def _with_whole_values(words: Sequence[str]) -> list[str]:
    """Return the words with the parts of a GPU's name, and a number and its unit, put together after their option."""
    if not words or words[0] not in {"recommend", "plan"}:
        return list(words)
    whole: list[str] = []
    for word in words:
        option = whole[-2] if len(whole) > 1 else ""
        is_gpu = option == "--gpu" and _GPU_START.match(whole[-1]) and _GPU_PART.fullmatch(word)
        if is_gpu or (option in _SIZES and whole[-1].isdecimal() and _UNIT.fullmatch(word)):
            whole[-1] += f" {word}"
        else:
            whole.append(word)
    return whole


def _is_question(word: str) -> bool:
    """Return whether a first word is a question for the default model: a text in quotes."""
    return len(word.split()) > 1 and not word.startswith("-")


def answer(error: Any, commands: Sequence[str]) -> HermesError | None:  # noqa: ANN401 - Typer's classes are private
    """Return our error for one of Typer's; None for the help that it shows where nothing was typed."""
    kind, context = type(error).__name__, error.ctx
    if context is None and (option := re.match(r"Option '(.*?)' (requires|does not take)", error.message)):
        if option[2] == "requires":
            return UsageError(f"{option[1]} needs a value.", hint=f"give one: {option[1]} VALUE")
        return UsageError(f"{option[1]} takes no value.", hint=f"leave the value out: {option[1]}")
    path = context.command_path if context else "hermes"
    hint = f"see what there is: {path} --help"
    if kind == "NoArgsIsHelpError":
        return None
    if kind == "NoSuchOption":
        near = _alike(error.option_name, error.possibilities or ())
        if (word := error.option_name.lstrip("-")) in commands and context and context.parent is None:
            near = [f"{path} {word}"]
        did_you = f"did you mean {' or '.join(near)}?" if near else hint
        here = OPTION_ANSWERS.get(f"{context.info_name} {error.option_name}" if context else "")
        hint = here or OPTION_ANSWERS.get(error.option_name) or did_you
        return UsageError(f"{path} has no option {error.option_name}.", hint=hint)
    if match := re.match(r"No such command '(.*?)'", error.message, re.DOTALL):
        is_root = context.parent is None
        return _unknown_command(
            match[1], commands if is_root else list(context.command.commands), path, is_root=is_root
        )
    is_gpu = _gpu_without_option(error) if _EXTRA.match(error.message) else None
    return is_gpu or UsageError(_reason(error, kind, path), hint=_example(error, kind) or _range(error) or hint)


def _alike(typed: str, options: Sequence[str]) -> list[str]:
    """Return the options that a typed one may have meant: one or two, and much like it."""
    import difflib

    return difflib.get_close_matches(typed, options, n=2, cutoff=MUCH_ALIKE)


def _gpu_without_option(error: Any) -> HermesError | None:  # noqa: ANN401 - as above
    """Return the error for a GPU's name behind a model's, or in several words without quotes."""
    context, extra = error.ctx, error.message.partition("(")[2].partition("(")[2].rstrip(")")
    arguments = [context.params.get(of.name) for of in context.command.params if of.param_type_name == "argument"]
    named = " ".join(word for word in arguments if isinstance(word, str))
    return gpu_as_model(f"{named} {extra}".strip(), context.info_name) or gpu_as_model(extra, context.info_name, named)


def instead_of_model(typed: str, command: str) -> HermesError | None:
    """Return the error for a port or a GPU's name where a model's belongs; None if it is neither."""
    if command == "serve" and re.fullmatch(r"\d{4,5}", typed):
        return NotFoundError(f"{typed} is not a model.", hint=f"if it is a port: hermes serve NAME --port {typed}")
    return gpu_as_model(typed, command)


def gpu_as_model(typed: str, command: str, model: str = "NAME") -> HermesError | None:
    """Return the error for a GPU's name where a model's belongs; None if it is no GPU's."""
    from hermes_cli.hardware.gpus import gpus_named

    try:
        gpus = gpus_named(typed)
    except UsageError:
        return None
    option = f"--gpu {shlex.quote(typed)}"
    if all(gpu.vendor == "apple" for gpu in gpus):
        option = f'--apple "{typed} {gpus[-1].sizes[0]}G"'
    hint = f"what fits it: hermes recommend {option}"
    if command == "plan" or model != "NAME":
        hint = f"a model on it: hermes plan {shlex.quote(model)} {option}; {hint}"
    return NotFoundError(f"{typed} is a GPU, not a model.", hint=hint)


def _reason(error: Any, kind: str, path: str) -> str:  # noqa: ANN401 - as above
    parameter = getattr(error, "param", None)
    if match := _EXTRA.match(error.message):
        return f"{path} takes no argument {match[1]}."
    if parameter is None:
        return str(error.format_message())
    if kind == "MissingParameter":
        return f"{path} needs {_shown(parameter).rstrip('.')}."
    return f"{_shown(parameter)}: {plain_words(error.message)}"


def plain_words(message: str) -> str:
    """Return what Typer says of a value, with its words for kinds of numbers in plain ones."""
    message = message.rstrip(".")
    if match := re.match(r"(\S+) is not in the range", message):
        message = f"{match[1].removesuffix('.0')} is out of range"
    for typers, plain in _NUMBERS.items():
        message = message.replace(typers, plain)
    return f"{message}."


def _range(error: Any) -> str | None:  # noqa: ANN401 - as above
    """Return what number an option takes."""
    kind = getattr(getattr(error, "param", None), "type", None)
    if kind is None or "number" not in (
        name := next((to for of, to in _NUMBERS.items() if of.endswith(kind.name)), "")
    ):
        return None
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    if least is not None and most is not None:
        name += f" from {least:,g} to {most:,g}" if most < 2**31 else f", {least:,g} or more"
    elif least is not None:
        name += f", {least:,g} or more"
    point = "; its decimals come after a point" if re.search(r"'\d+,\d+'", error.message) else ""
    return f"give a {name}{point}."


def _example(error: Any, kind: str) -> str | None:  # noqa: ANN401 - as above
    """Return how the command is typed, where something is missing."""
    if kind != "MissingParameter":
        return None
    usage = error.ctx.get_usage().removeprefix("Usage: ").replace("[OPTIONS] ", "")
    option = (
        "" if error.param.param_type_name == "argument" else f" {_shown(error.param)} {error.param.metavar or 'VALUE'}"
    )
    return "type it like this: " + " ".join(re.sub(r"[{}]", "", usage).split()) + option


def _unknown_command(name: str, commands: Sequence[str], path: str, *, is_root: bool) -> HermesError:
    if is_root and name in ANSWERS:
        return NotFoundError(f"{path} has no command {name}.", hint=ANSWERS[name])
    import difflib

    group = path.rsplit(maxsplit=1)[-1]
    near = difflib.get_close_matches(name, commands, n=2, cutoff=0.6 if is_root else 0.7)
    if known := SUBCOMMAND_ANSWERS.get(f"{group} {name}"):
        hint = known
    elif near:
        hint = f"did you mean {' or '.join(f'{path} {command}' for command in near)}?"
    elif is_root and not re.search(r"\w", name):
        hint = f"see what there is: {path} --help"
    elif is_root:
        hint = f"if it is a model: {path} chat {shlex.quote(name)}; all commands: {path} --help"
    else:
        hint = SUBCOMMAND_ANSWERS.get(group, f"see what there is: {path} --help")
    return NotFoundError(f"{path} has no command {name[:80]}.", hint=hint)


def _shown(parameter: Any) -> str:  # noqa: ANN401 - as above
    if parameter.param_type_name == "argument":
        return str(parameter.make_metavar(None) if parameter.metavar is None else parameter.metavar)
    return str(max(parameter.opts, key=len))


TYPER_ERROR: Any = typer.BadParameter.__bases__[0]
"""Typer's class of all errors about what was typed, which has no public name."""
