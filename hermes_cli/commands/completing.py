"""Completion in bash, zsh and fish: the values that options and arguments can take, and the reply to the shell.

Typer calls the functions that stand as `autocompletion=` at options and arguments, and drops what does not begin as
the word that is being typed. They import what they need: a shell waits for each of them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from itertools import zip_longest

import typer

from hermes_cli import paths
from hermes_cli.errors import HermesError

Completer = Callable[[str], list[str]]
Described = list[tuple[str, str]]  # values with what zsh and fish show beside them

_SPECIAL = re.compile(r"[^\w@%+=:,./~^-]")  # in an unquoted word of bash
_COUNT = re.compile(r"[0-9]{1,3}x")
_SERIES = re.compile(r"(?:GeForce|Radeon) (?=\S)")  # words that people leave out
_ZSH_VALUE = re.compile(r'^(_arguments .*?\(\()?"', re.MULTILINE)


def complete(application: typer.Typer, program: str, shell: str) -> int:
    """Print what can follow in a command line, in Typer's format for the shell; return the exit code.

    Mends what Typer leaves open: bash takes `hermes-3:8b` and `--to=DIR` for several words, blanks need a backslash
    there, and zsh and fish compare `--to=DIR` as one word.
    """
    sys.modules["rich"] = None  # type: ignore[assignment]  # which Typer would import to read markup in help texts
    if shell == "bash":
        separator = "\n" if "\n" in os.environ["COMP_WORDS"] else " "
        words, standing = joined_words(os.environ["COMP_WORDS"].split(separator), int(os.environ["COMP_CWORD"]))
        os.environ |= {"COMP_WORDS": separator.join(words), "COMP_CWORD": str(len(words) - 1)}
        typed = words[-1]
    else:
        typed, standing = os.environ.get("_TYPER_COMPLETE_ARGS", "").rpartition(" ")[2], ""
    option = f"{typed.partition('=')[0]}=" if typed.startswith("-") and "=" in typed else ""
    reply, code = StringIO(), 0
    with redirect_stdout(reply):
        try:
            application([], prog_name=program, standalone_mode=False)
        except SystemExit as leave:
            code = int(leave.code or 0)
        finally:
            del sys.modules["rich"]
    text = reply.getvalue()
    if shell == "bash":
        quoted = typed.removeprefix(option).startswith(("'", '"'))
        values = [(option + line).removeprefix(standing) for line in text.splitlines() if line]
        text = "".join(f"{value if quoted else _SPECIAL.sub(_escape, value)}\n" for value in values)
    elif shell == "zsh":
        text = _ZSH_VALUE.sub(lambda match: f'{match[1] or ""}"{option}', text)
    elif option:
        text = "".join(f"{option}{line}\n" for line in text.splitlines() if line)
    typer.echo(text, nl=False)
    return code


def mend_zsh_script() -> None:
    """Have Typer's script complete at the first Tab: loaded as a function, it would only declare itself then."""
    from typer import _completion_classes, _completion_shared  # the scripts have no public name

    declare = "compdef %(complete_func)s %(prog_name)s\n"
    called = f'if [[ $funcstack[1] == _%(prog_name)s ]]; then\n  %(complete_func)s "$@"\nelse\n  {declare}fi\n'
    script = _completion_shared.COMPLETION_SCRIPT_ZSH.replace(declare, called)
    _completion_shared._completion_scripts["zsh"] = script  # noqa: SLF001 - as above
    _completion_classes.ZshComplete.source_template = script


def joined_words(
    words: Sequence[str],  # COMP_WORDS, in which these characters are words of their own
    cursor: int,  # index of the word that is being typed
) -> tuple[list[str], str]:
    """Join what bash split at `:` and `=`.

    Returns:
        The words up to the cursor, and the part of the last one that bash keeps: a completion is what follows it.
    """
    pieces: list[list[str]] = []
    for word in words[: cursor + 1]:
        after = len(pieces) > 1 and bool(word)  # an empty word stands after a blank
        if after and (_is_break(word) or _is_break(pieces[-1][-1])):
            pieces[-1].append(word)
        else:
            pieces.append([word])
    last = pieces[-1]
    standing = last if _is_break(last[-1]) else last[:-1]
    return ["".join(parts) for parts in pieces], "".join(standing)


def _is_break(word: str) -> bool:
    return bool(word) and not word.strip(":=")


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def one_of(*values: str) -> Completer:
    """Return a function that completes a few fixed values."""

    def values_of(incomplete: str) -> list[str]:  # noqa: ARG001 - Typer passes it by this name
        return list(values)

    return values_of


def catalogue_models(incomplete: str) -> Described:
    """Return the names of the catalogue; with a model and a colon, its quantizations."""
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.catalog.variants import preferred_variants
    from hermes_cli.units import gigabytes

    with suppress(HermesError):
        models = load_catalogue().models
        named = [model for model in models if incomplete.startswith(f"{model.short}:")]
        variants = [variant for model in named for variant in preferred_variants(model)]
        described = [(model.short, model.name) for model in models]
        return described + [(variant.name, gigabytes(variant.bytes)) for variant in variants]
    return []


def installed_models(incomplete: str) -> Described:  # noqa: ARG001 - as above
    """Return the names of the models on this disk, as `hermes list --installed` shows them."""
    from hermes_cli.catalog.load import load_catalogue
    from hermes_cli.store.inventory import inventory
    from hermes_cli.units import gigabytes

    with suppress(HermesError, OSError):
        return [(model.name, gigabytes(model.bytes)) for model in inventory(load_catalogue())]
    return []


def local_models(incomplete: str) -> Described:
    """Return the models that need no download: those on this disk, and the demo."""
    return [("demo", "ships with hermes"), *installed_models(incomplete)]


def models(incomplete: str) -> Described:
    """Return the models of the catalogue, those on this disk, and the demo."""
    described = dict(local_models(incomplete))
    return [*described.items(), *(item for item in catalogue_models(incomplete) if item[0] not in described)]


def first_model(ctx: typer.Context, incomplete: str) -> Described:
    """Return models for the first word of `hermes chat`; those behind it are the prompt."""
    return [] if ctx.params.get("words") or ctx.params.get("model") else models(incomplete)


def draft_models(incomplete: str) -> Described:
    """Return what --draft takes."""
    choices = [("auto", "one that is installed"), ("off", "no speculative decoding")]
    return [*choices, *local_models(incomplete)]


def quantizations(ctx: typer.Context) -> list[str]:
    """Return the quantizations of the models in the command line, or of all."""
    from hermes_cli.catalog.load import load_catalogue

    with suppress(HermesError):
        every = load_catalogue().models
        named = [model for model in every if model.short in (ctx.params.get("names") or ())]
        repositories = [repository for model in named or every for repository in model.gguf]
        return list(dict.fromkeys(name for repository in repositories for name in repository.quantizations))
    return []


def generations(incomplete: str) -> list[str]:  # noqa: ARG001 - as above
    """Return the generations of models in the catalogue."""
    from hermes_cli.catalog.load import load_catalogue

    with suppress(HermesError):
        return list(dict.fromkeys(model.generation for model in load_catalogue().models))
    return []


def session_names(incomplete: str) -> list[str]:  # noqa: ARG001 - as above
    """Return the saved conversations, the newest first."""
    with suppress(HermesError, OSError):
        files = [(entry.stat().st_mtime, entry.name) for entry in os.scandir(paths.chats_dir())]
        return [name.removesuffix(".jsonl") for _, name in sorted(files, reverse=True) if name.endswith(".jsonl")]
    return []


def gpu_names(incomplete: str) -> list[str]:
    """Return the GPUs that --gpu knows, with the number in front that was typed."""
    count = match[0] if (match := _COUNT.match(incomplete)) else ""
    cards = [row["name"] for row in _gpu_table() if row["vendor"] != "apple"]
    return [count + name for name in _unique(*(_SERIES.sub("", card) for card in cards), *cards)]


def apple_chips(incomplete: str) -> list[str]:  # noqa: ARG001 - as above
    """Return Apple's chips with each memory that they are sold with."""
    chips = [row for row in _gpu_table() if row["vendor"] == "apple"]
    named = ((name, row["sizes"]) for row in chips for name in (row["name"], *filter(None, row["also"].split(";"))))
    return _unique(*(f"{name} {size}G" for name, sizes in named for size in sizes.split(";")))


def _gpu_table() -> Iterator[dict[str, str]]:
    """Yield the rows of hardware/gpus.csv; that room's own reader makes more of each than a shell can wait for."""
    lines = (paths.PACKAGE / "hardware" / "gpus.csv").read_text("utf-8").splitlines()
    titles, *rows = (line.split(",") for line in lines if not line.startswith("#"))
    return (dict(zip_longest(titles, row, fillvalue="")) for row in rows)


def _unique(*values: str) -> list[str]:
    return list(dict.fromkeys(values))
