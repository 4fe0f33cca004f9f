"""The tools that flags and chat.yaml ask for, and what they allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.chat.tools.config import chosen_servers, read_file
from hermes_cli.chat.tools.consent import Consent
from hermes_cli.chat.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def open_toolbox(
    files: Sequence[str],
    servers: Sequence[str],
    headers: Sequence[str],
    *,
    allowed: Sequence[str],
    yes: bool,
    ask: Callable[[str], str] | None,
    warn: Callable[[str], None],
) -> Toolbox:
    """A toolbox, which has to be closed; its MCP servers are on their way, and `ready` waits for them.

    Args:
        files: with typed functions; `demo` is the one that ships with hermes.
        servers: names in chat.yaml, addresses and command lines.
        headers: `Name: value`, for the one address.
        allowed: names of tools that run without a question, beside those of chat.yaml.
        yes: all tools do.
        ask: shows a question and returns the line that was typed.
        warn: is told which tools are left out.

    Raises:
        HermesError: a file, a server, a header or chat.yaml is not what it should be.
    """
    file = read_file()
    toolbox = Toolbox(Consent(ask, allow=[*file.allow, *allowed], everything=yes), warn)
    for one in files:
        toolbox.add_file(one)
    toolbox.begin(chosen_servers(servers, headers, file))
    return toolbox
