"""`hermes login`: keys for services that host Hermes models."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from typing import TYPE_CHECKING, Annotated

from hermes_cli.commands.completing import one_of
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console, stdin_is_terminal
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from hermes_cli.chat.endpoint.providers import Provider

TITLES = ("SERVICE", "NAME", "KEY FROM", "MAKE ONE AT")

NameArgument = Annotated[
    str | None, argument("[SERVICE]", "openrouter or nous. Without one: list them.", one_of("openrouter", "nous"))
]


@with_console
def command(console: Console, service: NameArgument = None) -> None:
    """Store the key of a service that hosts Hermes models: typed unseen, or piped in. Without a service: list them.

    hermes login openrouter

    hermes chat openrouter:hermes-4-70b "What can you do?"
    """
    from hermes_cli.chat.endpoint.providers import PROVIDERS, provider_named, store_key

    if service is None:
        sources = {name: _source(provider) for name, provider in PROVIDERS.items()}
        rows = [(name, each.title, sources[name] or "none yet", each.page) for name, each in PROVIDERS.items()]
        console.table(TITLES, rows, prose="MAKE ONE AT")
        console.note("store a key: hermes login SERVICE; the Hub's own token: hf auth login")
        console.document({"services": [{"name": name, "key": source or None} for name, source in sources.items()]})
        return
    provider = provider_named(service)
    if stdin_is_terminal():
        console.note(f"make a key at {provider.page}")
        key = getpass(f"key for {provider.title} (not shown): ")
    else:
        key = sys.stdin.read() if sys.stdin else ""
    if not key.strip():
        raise UsageError("there is no key.", hint=f"type or pipe it in: hermes login {provider.name} < FILE")
    place = store_key(provider, key)
    console.note(f"stored in {place}; hermes logout {provider.name} removes it")
    console.document({"service": provider.name, "stored": place})


def _source(provider: Provider) -> str:
    from hermes_cli.chat.endpoint.providers import stored_key

    return (
        provider.variable if os.environ.get(provider.variable) else "hermes login" if stored_key(provider.host) else ""
    )
