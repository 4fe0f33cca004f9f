"""`hermes search`: repositories on the Hub with GGUF files."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.units import billions

TITLES = ("NAME", "PARAMETERS", "DOWNLOADS", "LICENSE", "QUANTIZATIONS", "UPDATED")


@with_console
def command(
    console: Console,
    words: Annotated[list[str], argument("WORD...", "Words in the name of the repository.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most repositories to show.")] = 20,
) -> None:
    """Search the Hub for repositories with GGUF files, the most downloaded first.

    Sizes are in parameters; `hermes show NAME` has the size of each file. Downloads are those of the last 30 days.

        hermes search hermes 4 14b
    """
    text = " ".join(words).strip()
    if not text:
        raise UsageError("there is no word to search for.", hint="for example: hermes search hermes 4")
    with console.working("asking the Hub"):
        from hermes_cli.store.hub import search_repositories

        found = search_repositories(text, limit)
    console.document({"repositories": [asdict(repository) for repository in found]})
    if not found:
        raise NotFoundError(
            f"the Hub has no GGUF files under the name {text}.", hint="try fewer words, or list our own: hermes list"
        )
    rows = [
        (
            repository.repo,
            billions(repository.parameters) if repository.parameters else "",
            "" if repository.downloads is None else f"{repository.downloads:,}",
            f"{repository.license or ''}{' (gated)' if repository.gated else ''}".strip(),
            str(len(repository.quantizations) or ""),
            repository.updated or "",
        )
        for repository in found
    ]
    console.table(TITLES, rows, right=("PARAMETERS", "QUANTIZATIONS", "DOWNLOADS"), optional=("LICENSE", "UPDATED"))
    first = shlex.quote(found[0].repo)
    console.note(f"fetch one: hermes pull {first} · its files: hermes show {first}")
