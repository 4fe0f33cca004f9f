"""Every error that a user can meet.

    HermesError                 1    it failed
     ├── UsageError             2    what was typed or given cannot be understood
     ├── NotFoundError          3    no such model, file or command
     │    ├── NotInstalledError      a model that has to be fetched first
     │    └── UnknownModelError      what was typed names no model
     ├── DoesNotFitError        4    more memory or context is needed than there is
     │    └── ContextFullError       the conversation is longer than the context length
     ├── NetworkError           5    the Hub or a server could not be reached
     ├── IntegrityError         6    a file is not what it should be
     │    └── InvalidGGUFError       it is not a GGUF file, or a damaged one
     ├── AccessError            1    a file or folder may not be opened
     ├── QueueFullError         1    too many requests are waiting already
     ├── NotReadyError          1    a model is not loaded in time, or the server is about to stop
     └── EngineError            1    llama.cpp refused or failed
          └── EngineDiedError        its process ended while it worked
    KeyboardInterrupt         130    Ctrl-C

The number is the exit code. Every error says what is wrong and where; its `hint` says what to type next.
"""

import re
import shlex
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

DOUBLED = re.compile(r"[^\s./\\]\.\.$")  # "..", alone or behind a slash, is a folder


class ExitCode(IntEnum):
    """Exit codes of the process; documented in docs/commands.md, never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DOES_NOT_FIT = 4
    NETWORK = 5
    INTEGRITY = 6
    INTERRUPTED = 130


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint for a word that is not known: the one of `known` that it is most like, else `otherwise`."""
    import difflib  # noqa: PLC0415 - only for errors

    near = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else otherwise


class HermesError(Exception):
    """An error to show to the user: one sentence, and a hint with the next step."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str) -> None:
        self.message, self.hint = map(_with_one_full_stop, (message, hint))
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle with all attributes; exceptions keep only positional arguments otherwise."""
        return restore, (type(self), vars(self))


def _with_one_full_stop(text: str) -> str:
    """Return the text without a second full stop, as where a library's reason ends in one and ours follows."""
    return text[:-1] if DOUBLED.match(text[-3:]) else text  # a search would go through all of a long one


def restore(kind: type[HermesError], attributes: dict[str, Any]) -> HermesError:
    """Return an error made of its class and its attributes, as they come from another process."""
    error = kind.__new__(kind, attributes["message"])
    vars(error).update(attributes)
    return error


class UsageError(HermesError):
    """Input that cannot be understood."""

    exit_code = ExitCode.USAGE

    def __init__(self, reason: str, *, hint: str, field: str = "") -> None:
        """Make a sentence that begins with the field, if there is one: `UsageError("is empty.", field="stop", …)`."""
        super().__init__(f"{field} {reason}" if field else reason, hint=hint)
        self.field = field  # the path of the request's field that is to blame, such as `messages[3].content`
        self.reason = reason  # the sentence without the field


class NotFoundError(HermesError):
    """No such model, file or command."""

    exit_code = ExitCode.NOT_FOUND


class NotInstalledError(NotFoundError):
    """A model that is known, and not on this machine."""

    def __init__(self, message: str, *, pull: str) -> None:
        super().__init__(message, hint=f"fetch it: hermes pull {shlex.quote(pull)}")
        self.pull = pull  # the name to fetch it by: `hermes pull NAME`


class UnknownModelError(NotFoundError):
    """What was typed names no model, and no file; `name` is what it was."""

    def __init__(self, name: str, *, hint: str) -> None:
        super().__init__(f"there is no model named {name} and no such file.", hint=hint)
        self.name = name


class DoesNotFitError(HermesError):
    """More memory or context is needed than there is."""

    exit_code = ExitCode.DOES_NOT_FIT

    def __init__(self, message: str, *, hint: str, alternative: str = "") -> None:
        super().__init__(message, hint=hint)
        self.alternative = alternative  # other flags with which the same model would fit; empty if none are known


class ContextFullError(DoesNotFitError):
    """The conversation is longer than the context length."""

    def __init__(
        self, message: str, *, hint: str, prompt_tokens: int | None = None, context_length: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.prompt_tokens, self.context_length = prompt_tokens, context_length  # None where a server tells neither


class NetworkError(HermesError):
    """The Hub or a server could not be reached."""

    exit_code = ExitCode.NETWORK


class IntegrityError(HermesError):
    """A file is not what it should be: truncated, altered, or of another kind."""

    exit_code = ExitCode.INTEGRITY


class InvalidGGUFError(IntegrityError):
    """A file is not a GGUF file, a damaged one, or of a kind that llama.cpp cannot load; the message says where."""


class AccessError(HermesError):
    """The system does not let this user open a file or folder; the hint says what would."""


class EngineError(HermesError):
    """llama.cpp refused or failed."""


class QueueFullError(HermesError):
    """Too many requests are waiting already; the message says how many."""


class NotReadyError(HermesError):
    """A model is not loaded in time, or the server is about to stop; the same request may do later."""


class EngineDiedError(EngineError):
    """The engine's process ended while it worked: abort, signal, or out of memory. The next request restarts it."""
