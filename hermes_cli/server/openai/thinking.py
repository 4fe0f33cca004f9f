"""Whether the model is to reason before it answers, and how long, in all the ways in which clients say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.prompting.render import Format
    from hermes_cli.server.openai.schemas import ChatRequest

# Tokens of reasoning for OpenAI's levels, as Gemini's OpenAI-compatible API maps them
# (ai.google.dev/gemini-api/docs/openai); beyond them there is no limit but the context.
BUDGETS: dict[str, int | None] = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
    "xhigh": None,
    "max": None,
}
_LEVELS = f"there are none, {', '.join(BUDGETS)}"


@dataclass(frozen=True)
class Thinking:
    """What is wished.

    Attributes:
        think: None leaves it as the model, or the server, is by itself.
        budget: the most tokens of reasoning; None for any.
        keep: earlier turns keep their reasoning.
        show: whether the client wants to see it.
        field: who asks for reasoning, to be named if there is none.
    """

    think: bool | None = None
    budget: int | None = None
    keep: bool = False
    show: bool = True
    field: str = ""


def wished(body: ChatRequest) -> Thinking:
    """What a request says. Where it says two things, what OpenAI documents counts first.

    Raises:
        UsageError: a value makes no sense.
    """
    said = list(_said(body))
    field, think = next(((field, think) for field, think, _ in said if think is not None), ("", None))
    budget = next((budget for _, _, budget in said if budget is not None), None)
    shown = [body.include_reasoning, None if _flag(body.reasoning, "exclude", "reasoning") is not True else False]
    return Thinking(
        think,
        None if think is False else budget,
        _flag(body.chat_template_kwargs, "keep_cots", "chat_template_kwargs") is True,
        False not in shown,
        field,
    )


def check(thinking: Thinking, form: Format, model: str) -> None:
    """Refuse what a model cannot do.

    Raises:
        UsageError: reasoning is asked of a model that has none.
    """
    if thinking.think and thinking.field and not form.reasons:
        raise UsageError(
            f"asks for reasoning, and {model} has no reasoning mode.",
            field=thinking.field,
            hint="leave it out, or ask a model that reasons.",
        )


def _said(body: ChatRequest) -> Iterator[tuple[str, bool | None, int | None]]:
    """Field, whether to think, and how long."""
    if body.reasoning_effort is not None:
        yield "reasoning_effort", *_level(body.reasoning_effort, "reasoning_effort")
    given = body.chat_template_kwargs
    for name in ("thinking", "enable_thinking"):
        yield f"chat_template_kwargs.{name}", _flag(given, name, "chat_template_kwargs"), None
    yield from _openrouter(body.reasoning or {})
    yield from _anthropic(body.thinking or {})
    if isinstance(body.think, str):
        yield "think", *_level(body.think, "think")
    else:
        yield "think", body.think, None
    yield "enable_thinking", body.enable_thinking, None
    yield "thinking_budget_tokens", *_tokens(body.thinking_budget_tokens, "thinking_budget_tokens")


def _openrouter(given: dict[str, Any]) -> Iterator[tuple[str, bool | None, int | None]]:
    if given.get("effort") is not None:
        yield "reasoning.effort", *_level(given["effort"], "reasoning.effort")
    yield "reasoning.enabled", _flag(given, "enabled", "reasoning"), None
    off, budget = _tokens(given.get("max_tokens"), "reasoning.max_tokens")
    yield "reasoning.max_tokens", True if budget else off, budget


def _anthropic(given: dict[str, Any]) -> Iterator[tuple[str, bool | None, int | None]]:
    if not given:
        return
    kinds = {"enabled": True, "disabled": False, "adaptive": None}
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise UsageError(f"must be one of {', '.join(kinds)}.", field="thinking.type", hint="leave thinking out.")
    yield "thinking.type", kinds[kind], _tokens(given.get("budget_tokens"), "thinking.budget_tokens")[1]


def _level(given: object, field: str) -> tuple[bool, int | None]:
    """Whether to think, and the budget."""
    if given == "none":
        return False, None
    if not isinstance(given, str) or given not in BUDGETS:
        raise UsageError(f"is {str(given)[:40]!r}.", field=field, hint=f"{_LEVELS}.")
    return True, BUDGETS[given]


def _tokens(given: object, field: str) -> tuple[bool | None, int | None]:
    """A budget; none at all is no thinking, and a negative one is no limit."""
    if given is None:
        return None, None
    if not isinstance(given, int) or isinstance(given, bool):
        raise UsageError("must be a number of tokens.", field=field, hint="give a whole number, or leave it out.")
    return (None, None) if given < 0 else (False if given == 0 else None, given)


def _flag(given: dict[str, Any] | None, name: str, of: str) -> bool | None:
    value = (given or {}).get(name)
    if value is not None and not isinstance(value, bool):
        raise UsageError("must be true or false.", field=f"{of}.{name}", hint="leave it out for what is usual.")
    return value
