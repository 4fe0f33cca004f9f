"""All commands with their options, exit codes and environment variables, from the code: docs/commands.md.

python tools/reference.py            print it
python tools/reference.py --write    replace the file; `make completions` does that, too
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from hermes_cli import errors
from hermes_cli.commands.app import COMMANDS, build_app

FILE = Path(__file__).parent.parent / "docs" / "commands.md"
OUTPUT = ("--json", "--quiet", "--no-color", "--help")  # which every command has
OTHER_VARIABLES = {
    "HERMES_LLM_DATA_DIR": "the folder of conversations and imported files; `hermes paths` shows all folders",
    "HERMES_LLM_CONFIG_DIR": "the folder of settings",
    "HERMES_LLM_CACHE_DIR": "the folder of what can be made again",
    "HERMES_LLM_ENDPOINT_KEY": "the key of `--endpoint`, which no option takes",
    "HERMES_LLM_ENGINE_KEY": "the key of `--engine-url`, which no option takes",
    "HERMES_LLM_ENGINE_NODES": "how many machines the engine of `--engine-url` runs on: of several it gets a heartbeat",
    "HERMES_LLM_LLAMA_SERVER": "the program of `--engine llama-server`",
    "HERMES_LLM_VLLM": "the program of `--engine vllm`",
    "HERMES_LLM_SGLANG": "the program of `--engine sglang`",
    "HERMES_LLM_LOG_DIR": "the folder of the logs of servers in the background",
    "HERMES_LLM_THEME": "`dark` or `light`: the background of the terminal, for colours. Default: what COLORFGBG says, "
    "else colours that can be read on both",
    "NO_COLOR": "no colours, as `--no-color`",
    "HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE": "the Hub's own, as everywhere",
}


def cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def option_rows(command: Any) -> Iterator[str]:  # noqa: ANN401 - Typer's classes are private
    """Yield a row for each option of a command, but for those of the output."""
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.hidden or parameter.opts[-1] in OUTPUT:
            continue
        names = ", ".join(f"`{name}`" for name in sorted((*parameter.opts, *parameter.secondary_opts), key=len))
        value = "" if parameter.is_flag else f" {parameter.metavar or parameter.type.name.split()[0].upper()}"
        name = names[:-1] + f"{value}`" if value else names
        yield f"| {cell(name)} | {cell(parameter.help or '')} |"


def command_lines(path: str, command: Any, level: int = 3) -> Iterator[str]:  # noqa: ANN401 - as above
    """Yield the section of a command and of those below it."""
    context = command.make_context(path, [], resilient_parsing=True)
    usage = re.sub(r"[{}]", "", command.get_usage(context).removeprefix("Usage: "))
    yield from (f"{'#' * level} {path}", "", inspect.cleandoc(command.help or command.short_help or ""), "")
    yield from ("```text", " ".join(usage.split()), "```", "")
    if rows := list(option_rows(command)):
        yield from ("| option | does |", "| --- | --- |", *rows, "")
    for name, below in getattr(command, "commands", {}).items():
        yield from command_lines(f"{path} {name}", below, level + 1)


def exit_codes() -> Iterator[str]:
    """Yield a row for each exit code: the first meaning that the tree in errors.py gives it."""
    meanings = {"0": "it is done"}
    for number, meaning in re.findall(r" (\d+) {4}(.+)$", errors.__doc__ or "", re.MULTILINE):
        meanings.setdefault(number, meaning)
    yield from (f"| {number} | {meaning} |" for number, meaning in meanings.items())


def page() -> str:
    """Return the whole page."""
    lines = [
        "# All commands and options",
        "",
        "Written from the code by `tools/reference.py`; change the help texts there, and type `make completions`.",
        "",
        "Every command takes `-h` and `--help`, and those that print results also `--json` (one document with stable",
        "keys), `-q`, `--quiet` (data only) and `--no-color`.",
        "",
        "## Commands",
        "",
    ]
    variables: dict[str, str] = {}
    for name in COMMANDS:
        command = get_command(build_app(name)).commands[name]  # type: ignore[attr-defined]
        lines += command_lines(f"hermes {name}", command)
        for parameter in command.params:
            if isinstance(parameter.envvar, str):
                option = max(parameter.opts, key=len)
                variables.setdefault(parameter.envvar, f"`{option}`" if option[0] == "-" else "the names of models")
    lines += ["## Exit codes", "", "| code | means |", "| --- | --- |", *exit_codes()]
    lines += ["", "## Environment variables", "", "| variable | does |", "| --- | --- |"]
    for name in sorted(variables.keys() - OTHER_VARIABLES.keys()):
        lines.append(f"| `{name}` | the same as {variables[name]} |")
    for names, does in OTHER_VARIABLES.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {does} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
