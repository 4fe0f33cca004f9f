"""`hermes logout`: a stored key is removed."""

from __future__ import annotations

import os
from typing import Annotated

from hermes_cli.commands.completing import one_of
from hermes_cli.commands.options import argument, with_console
from hermes_cli.console import Console
from hermes_cli.errors import NotFoundError


@with_console
def command(
    console: Console,
    service: Annotated[str, argument("SERVICE", "openrouter or nous.", one_of("openrouter", "nous"))],
) -> None:
    """Remove the stored key of a service from this machine."""
    from hermes_cli.chat.endpoint.providers import forget_key, provider_named

    provider = provider_named(service)
    if not forget_key(provider):
        raise NotFoundError(f"no key of {provider.title} is stored.", hint="see where keys come from: hermes login")
    left = f"; {provider.variable} is still in the environment" if os.environ.get(provider.variable) else ""
    console.note(f"removed; it stays valid until you delete it at {provider.page}{left}")
    console.document({"service": provider.name, "removed": True})
