"""Reasoning before the answer: whether, and how long, in all the fields that say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.families import shown
from hermes_cli.server.openai.requests import ChatRequest

# Tokens of reasoning for OpenAI's levels, as Gemini's OpenAI-compatible API maps them
# (ai.google.dev/gemini-api/docs/openai); beyond them there is no limit but the context.
BUDGETS: dict[str, int | None] = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
    "xhigh": None,
    "max": None,
    "ultra": None,
}
_LEVELS = f"there are none, {', '.join(BUDGETS)}"


@dataclass(frozen=True)
class ThinkingChoice:
    """Reasoning as a request asks for it."""

    think: bool | None = None  # None leaves it to the server's setting, or the model
    budget: int | None = None  # the most tokens of reasoning; None for any number
    keep: bool = False  # earlier turns keep their reasoning
    show: bool = True  # give it to the client
    field: str = ""  # the field that asks for reasoning, for errors


def parse(body: ChatRequest) -> ThinkingChoice:
    """Parse the fields of a request. Of two that contradict each other, the one that OpenAI documents counts."""
    asked = list(_reasoning_fields(body))
    field, think = next(((field, think) for field, think, _ in asked if think is not None), ("", None))
    budget = next((budget for _, _, budget in asked if budget is not None), None)
    hidden = body.include_reasoning is False or _flag(body.reasoning, "exclude", "reasoning") is True
    return ThinkingChoice(
        think,
        None if think is False else budget,
        _flag(body.chat_template_kwargs, "keep_cots", "chat_template_kwargs") is True,
        not hidden,
        field,
    )


def _reasoning_fields(body: ChatRequest) -> Iterator[tuple[str, bool | None, int | None]]:
    """Yield field, whether to think, and the budget."""
    if body.reasoning_effort:
        yield "reasoning_effort", *_level(body.reasoning_effort, "reasoning_effort")
    template = body.chat_template_kwargs
    for name in ("thinking", "enable_thinking"):
        yield f"chat_template_kwargs.{name}", _flag(template, name, "chat_template_kwargs"), None
    # As OpenRouter takes it:
    openrouter = body.reasoning or {}
    if openrouter.get("effort") is not None:
        yield "reasoning.effort", *_level(openrouter["effort"], "reasoning.effort")
    yield "reasoning.enabled", _flag(openrouter, "enabled", "reasoning"), None
    off, budget = _tokens(openrouter.get("max_tokens"), "reasoning.max_tokens")
    yield "reasoning.max_tokens", True if budget else off, budget
    # As Anthropic takes it:
    if body.thinking:
        kinds = {"enabled": True, "disabled": False, "adaptive": None}
        kind = body.thinking.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            raise UsageError(f"must be one of {', '.join(kinds)}.", field="thinking.type", hint="leave thinking out.")
        budget = _tokens(body.thinking.get("budget_tokens"), "thinking.budget_tokens")[1]
        yield "thinking.type", kinds[kind], budget
    if isinstance(body.think, str):
        yield "think", *_level(body.think, "think")
    else:
        yield "think", body.think, None
    yield "enable_thinking", body.enable_thinking, None
    yield "thinking_budget_tokens", *_tokens(body.thinking_budget_tokens, "thinking_budget_tokens")


def _level(effort: object, field: str) -> tuple[bool, int | None]:
    """Return whether to think, and the budget."""
    if effort == "none":
        return False, None
    if not isinstance(effort, str) or effort not in BUDGETS:
        raise UsageError(f"is {shown(effort, 40)}.", field=field, hint=f"{_LEVELS}.")
    return True, BUDGETS[effort]


def _tokens(count: object, field: str) -> tuple[bool | None, int | None]:
    """Return whether to think, and the budget: 0 is no thinking, and a negative number is no limit."""
    if count is None:
        return None, None
    if not isinstance(count, int) or isinstance(count, bool):
        raise UsageError("must be a number of tokens.", field=field, hint="give a whole number, or leave it out.")
    return (None, None) if count < 0 else (False if count == 0 else None, count)


def _flag(options: dict[str, Any] | None, name: str, of: str) -> bool | None:
    value = (options or {}).get(name)
    if value is not None and not isinstance(value, bool):
        raise UsageError("must be true or false.", field=f"{of}.{name}", hint="leave it out for the default.")
    return value
