"""Whether a call may be run: what was allowed beforehand is, all else is shown as a whole and asked for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.chat.tools.functions import Tool
    from hermes_cli.prompting.messages import ToolCall

REFUSED = "the user did not allow this call"
SHOWN_CHARACTERS = 2_000  # of a call that is asked for


class Consent:
    """What the user allows in a chat."""

    def __init__(
        self, ask: Callable[[str], str] | None, *, allow: Sequence[str] = (), everything: bool = False
    ) -> None:
        """Nothing was asked yet.

        Args:
            ask: shows a question and returns the line that was typed; raises OSError where nobody can type.
            allow: names of tools, `*` for any letters in them, that need not be asked for.
            everything: no tool needs to be asked for.
        """
        self._ask, self._allow, self._everything = ask, tuple(allow), everything
        self._always: dict[tuple[str, str], dict[str, Any]] = {}

    def allows(self, tool: Tool) -> bool:
        """Whether its calls run without a question.

        Not any more once a server declares it otherwise than it was when the user said "always".
        """
        return (
            self._everything
            or any(fnmatchcase(tool.name, pattern) for pattern in self._allow)
            or self._always.get((tool.origin, tool.name)) == tool.schema
        )

    def refusal(self, tool: Tool, call: ToolCall) -> str | None:
        """Why a call must not be run, as the model is told; None if it may.

        Raises:
            UsageError: nobody can be asked.
        """
        if self.allows(tool):
            return None
        answer = self._answer(f"Run {shown(call)} ({tool.origin})?\n[y]es, [a]lways in this chat, [n]o, or why not: ")
        word, _, rest = answer.strip().partition(" ")
        said = word.strip(",.:;!").lower()
        if said in {"y", "yes", "a", "always"} and not rest:
            if said.startswith("a"):
                self._always[tool.origin, tool.name] = tool.schema
            return None
        reason = rest.strip() if said in {"n", "no"} else answer.strip()
        return f"{REFUSED}: {reason}" if reason else REFUSED

    def _answer(self, question: str) -> str:
        try:
            if self._ask is not None:
                return self._ask(question)
        except OSError:
            pass
        raise UsageError(
            f"the model wants a tool run ({question.splitlines()[0]}), and there is no terminal to ask on.",
            hint="add --allow NAME to run that tool without asking, or --yes for all of them.",
        )


def shown(call: ToolCall) -> str:
    """A call as one line that says what it is: letters that cannot be seen, or that reorder others, are written out."""
    text = str(call)
    left_out = len(text) - SHOWN_CHARACTERS
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:SHOWN_CHARACTERS])
    return f"{line} … and {left_out:,} characters more" if left_out > 0 else line
