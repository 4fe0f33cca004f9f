"""What `hermes chat` does once its flags are read: with whom, by which tools, in which conversation, how shown.

words ──► one question, or a conversation ──► partner (own engine | endpoint) ──► tools ──► talk
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hermes_cli import paths
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.manner import Manner
from hermes_cli.commands.opening import Opener
from hermes_cli.console import Voice
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import TextIO

    from hermes_cli.chat.loop import Loop
    from hermes_cli.chat.partner import Partner
    from hermes_cli.chat.records import Records
    from hermes_cli.chat.talk import Talk
    from hermes_cli.chat.toolbox import Toolbox
    from hermes_cli.chat.view import View
    from hermes_cli.commands.opening import How
    from hermes_cli.console import Console

OWN_PROMPT_HINT = "type it after the model's name, or pipe it in: git diff | hermes chat demo explain"


@dataclass(frozen=True)
class Wish:
    """What was typed, apart from how models are loaded.

    Attributes:
        words: a model, perhaps, and a prompt.
        model: the model, if it was said by a flag.
        endpoint: address of a server that answers in place of an engine.
        resume: the session to go on with; go_on: with the latest.
        save: keep the conversation.
        manner: how the model is to answer.
        tools: files with tools.
        servers, headers: of MCP.
        allowed: names of tools that run without a question; yes: all do.
        hide_thinking: reasoning is not shown.
    """

    words: tuple[str, ...] = ()
    model: str | None = None
    endpoint: str | None = None
    resume: str | None = None
    go_on: bool = False
    save: bool = True
    manner: Manner = field(default_factory=Manner)
    tools: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    yes: bool = False
    hide_thinking: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether it is about a conversation from earlier."""
        return self.go_on or self.resume is not None


def chat(wish: Wish, how: How, console: Console) -> None:
    """Answer one question, or talk until the user leaves.

    Raises:
        HermesError: whatever goes wrong, in words.
    """
    model, words = _model_and_words(wish)
    text = _with_piped(words)
    stays = not text and _on_terminal(console)
    if not text and not stays:
        raise UsageError("there is no prompt.", hint=OWN_PROMPT_HINT)
    with ExitStack() as stack:
        _Chat(wish, console, stack, stays=stays).run(model, text, how)


class Source(Protocol):
    """Where partners come from."""

    def opening(self, name: str | None) -> AbstractContextManager[Callable[[], Partner]]:
        """Begin to open one; what is yielded does the rest."""

    def open(self, name: str | None) -> Partner:
        """Open one."""

    def names(self) -> Sequence[str]:
        """Of those that there are."""


class _Chat:
    """One run of the command. What has to be closed goes onto its stack."""

    def __init__(self, wish: Wish, console: Console, stack: ExitStack, *, stays: bool) -> None:
        self._wish, self._console, self._stack, self._stays = wish, console, stack, stays
        self._asker: Callable[[str], str] = console.ask

    def run(self, model: str | None, text: str, how: How) -> None:
        """Open everything, and talk.

        Raises:
            HermesError: as `chat`.
        """
        from hermes_cli.chat.loop import Loop  # noqa: PLC0415 - asyncio

        wish, records = self._wish, self._records()
        conversation = Conversation(wish.manner)
        if records and wish.goes_on:
            conversation = records.load(wish.resume)
            conversation.behave(_changed(conversation.manner, wish.manner))
            model = model or (None if wish.endpoint else records.model or None)
        if not (wish.save and (self._stays or wish.goes_on)):
            how = replace(how, prefixes=None)
        loop = self._stack.enter_context(Loop())
        source = self._source(how, loop)
        with source.opening(model) as finish:
            toolbox = self._toolbox()
            talk = self._talk(conversation, finish(), toolbox, loop)
        if toolbox and toolbox.servers():
            with self._console.working("waiting for MCP servers"):
                toolbox.ready()
        if not (records and toolbox and self._stays):
            self._answer(talk, text)
            return
        if wish.save and not wish.goes_on:
            records.begin(conversation, talk.partner.name)
        self._stay(talk, toolbox, loop, records, source)

    def _records(self) -> Records | None:
        """Where the conversation is kept; None where nothing has to be read or written."""
        if not (self._wish.goes_on or self._stays):
            return None
        from hermes_cli.chat.records import Records  # noqa: PLC0415 - a single question needs none

        records = Records(paths.chats_dir(), self._console.warn)
        self._stack.callback(records.close)
        return records

    def _source(self, how: How, loop: Loop) -> Source:
        """Where partners come from."""
        if not self._wish.endpoint:
            return Opener(how, self._console, loop)
        from hermes_cli.chat.endpoint.source import Endpoint  # noqa: PLC0415 - only where one is named

        return Endpoint(self._wish.endpoint, loop, self._console.note, self._console.warn)

    def _toolbox(self) -> Toolbox | None:
        """The tools that were asked for. MCP servers are on their way."""
        wish = self._wish
        if not (wish.tools or wish.servers or self._stays):
            return None
        from hermes_cli.chat.tooling import open_toolbox  # noqa: PLC0415 - while another process works

        toolbox = open_toolbox(
            wish.tools,
            wish.servers,
            wish.headers,
            allowed=wish.allowed,
            yes=wish.yes,
            ask=self._asked,
            warn=self._console.warn,
        )
        self._stack.callback(toolbox.close)
        return toolbox

    def _asked(self, question: str) -> str:
        """What the user types, at whatever there is to type on by then."""
        return self._asker(question)

    def _talk(self, conversation: Conversation, partner: Partner, toolbox: Toolbox | None, loop: Loop) -> Talk:
        """A conversation. Whoever it is with at its end is closed then."""
        from hermes_cli.chat.talk import NoTools, Talk  # noqa: PLC0415 - imported with the partner

        talk = Talk(conversation, partner, toolbox or NoTools(), self._view(partner), loop)
        self._stack.callback(lambda: loop.run(talk.partner.close()))
        return talk

    def _view(self, partner: Partner) -> View:
        hidden = self._wish.hide_thinking
        if self._stays:
            from hermes_cli.chat.screen import TerminalView  # noqa: PLC0415 - Rich

            return TerminalView(self._console, hide_thinking=hidden)
        from hermes_cli.chat.oneshot import PlainView  # noqa: PLC0415 - with the rest

        return PlainView(self._console, partner, self._wish.manner, hide_thinking=hidden)

    def _answer(self, talk: Talk, text: str) -> None:
        """One question, and what it led to as a document."""
        from hermes_cli.chat.oneshot import document  # noqa: PLC0415 - imported before

        outcome = talk.ask(text)
        told = document(outcome, tools=bool(talk.schemas))
        self._console.document({"model": talk.partner.name, **told, **talk.partner.details})

    def _stay(self, talk: Talk, toolbox: Toolbox, loop: Loop, records: Records, source: Source) -> None:
        """Talk until the user leaves."""
        raise NotImplementedError


def _changed(saved: Manner, typed: Manner) -> Manner:
    """The manner of a session, with what this command line says otherwise."""
    usual = Manner()
    said = {
        one.name: value
        for one in fields(Manner)
        if (value := getattr(typed, one.name)) != getattr(usual, one.name) and one.name != "sampling"
    }
    return replace(saved, **said, sampling={**saved.sampling, **typed.sampling})


def _on_terminal(console: Console) -> bool:
    """Whether somebody is there to talk with."""
    return console.voice is Voice.HUMAN and console.out.isatty() and sys.stdin is not None and sys.stdin.isatty()


def _model_and_words(wish: Wish) -> tuple[str | None, Sequence[str]]:
    """What of the words is the model, and what the prompt.

    The first word is a model, unless one was named by a flag, a server is asked, or it holds several words, as only
    a prompt in quotes does.
    """
    if wish.model or wish.endpoint or not wish.words:
        return wish.model, wish.words
    first, *rest = wish.words
    if not first.strip() or (len(first.split()) > 1 and not Path(first).exists()):
        return None, wish.words
    return first, rest


def _with_piped(words: Sequence[str]) -> str:
    """What was typed, with what was piped in below it.

    Raises:
        UsageError: what was piped in is not text.
    """
    parts = [" ".join(words).strip()]
    stdin: TextIO | None = sys.stdin  # None when it was closed (`<&-`)
    if stdin is not None and not stdin.isatty():
        try:
            parts.append(stdin.buffer.read().decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise UsageError(
                f"standard input is not text (byte {error.start:,} is not UTF-8).", hint="pipe text, not a binary file."
            ) from None
    return "\n\n".join(part for part in parts if part)
