"""One question, answered once, with as many tool calls on the way as the model makes."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.generation import CallFinished, Content, Done, Message, Reasoning

if TYPE_CHECKING:
    from hermes_cli.chat.loop import Loop
    from hermes_cli.chat.tools import Tool
    from hermes_cli.console import Console
    from hermes_cli.generation import Chatter, ToolCall, Turn

MAX_ROUNDS = 10
SHOWN_CHARACTERS = 500  # of a tool's result on the terminal; the model gets all of it


@dataclass(frozen=True)
class Question:
    """What to answer: the first turn, in which `max_tokens` counts for each turn of the model that follows, too.

    `tools` are the functions behind `turn.tools`; `yes` runs them without asking.
    """

    turn: Turn
    tools: dict[str, Tool] = field(default_factory=dict)
    yes: bool = False


@dataclass
class _Answer:
    """What one turn of the model consisted of."""

    content: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    done: Done | None = None


def ask(chatter: Chatter, question: Question, console: Console, loop: Loop) -> dict[str, Any]:
    """Answer on the console, running tools as they are called.

    Returns:
        The document that `--json` prints: text, reasoning, tool_calls with results, finish_reason, usage (tokens of all
        turns together) and timings (milliseconds and tokens per second, measured).

    Raises:
        HermesError: generation failed, a tool needs a yes that nobody can give, or the calls never end.
    """
    turn, answers, ran = question.turn, [], []
    while True:
        answer = loop.run(_answer(chatter, turn, console))
        _say_about(answer, turn, chatter, console)
        answers.append(answer)
        if not answer.calls or not question.tools:
            break
        if len(answers) == MAX_ROUNDS:
            raise HermesError(
                f"the model called tools {MAX_ROUNDS} times in a row without an answer.",
                hint="ask for less at once, or check what the tools return.",
            )
        messages = [*turn.messages, Message("assistant", answer.content or None, tuple(answer.calls))]
        for call in answer.calls:
            result = _run(call, question, console)
            ran.append({"name": call.name, "arguments": call.arguments, "result": result})
            messages.append(Message("tool", result, tool_call_id=call.id, name=call.name))
        turn = replace(turn, messages=messages)
    if not question.tools:
        ran = [{"name": call.name, "arguments": call.arguments} for call in answers[-1].calls]
    return _document(answers, ran)


async def _answer(chatter: Chatter, turn: Turn, console: Console) -> _Answer:
    """One turn of the model, shown as it comes."""
    answer = _Answer()
    async with aclosing(chatter.answer(turn)) as events:
        async for event in events:
            if isinstance(event, Content):
                answer.content += event.text
                console.text(event.text)
            elif isinstance(event, Reasoning):
                answer.reasoning += event.text
            elif isinstance(event, CallFinished) and event.complete:
                answer.calls.append(event.call)
            elif isinstance(event, Done):
                answer.done = event
    return answer


def _say_about(answer: _Answer, turn: Turn, chatter: Chatter, console: Console) -> None:
    console.end_line()
    for call in answer.calls:
        console.note(f"→ {call}", style="cyan")
    if answer.reasoning:
        console.note(f"(thought: {answer.reasoning.strip()})")
    if answer.done and answer.done.reason == "length":
        limit, more = f"--max-tokens {turn.max_tokens}", ""
        if answer.done.context_full:
            limit, more = f"the context of {chatter.loaded.context:,} tokens", "; --context-shift would go on"
        console.warn(f"the answer was cut off: {limit} is used up{more}.")


def _run(call: ToolCall, question: Question, console: Console) -> str:
    """The text the model reads as the call's result; failures are results too."""
    from hermes_cli.chat.tools import ToolFailedError, run_tool  # noqa: PLC0415 - pydantic, only when there are tools

    if not question.yes and not _allowed(call, console):
        result = json.dumps({"error": "the user did not allow this call"})
    else:
        try:
            result = run_tool(question.tools, call)
        except ToolFailedError as error:
            result = json.dumps({"error": error.message}, ensure_ascii=False)
    cut = len(result) - SHOWN_CHARACTERS
    console.note(f"← {result[:SHOWN_CHARACTERS]}{f' … and {cut:,} characters more' if cut > 0 else ''}", style="green")
    return result


def _allowed(call: ToolCall, console: Console) -> bool:
    try:
        return console.ask(f"Run {call}? [y/N] ").lower() in {"y", "yes"}
    except OSError:
        raise UsageError(
            f"the model wants to run {call}, and there is no terminal to ask on.",
            hint="add --yes to run tools without asking.",
        ) from None


def _document(answers: list[_Answer], ran: list[dict[str, Any]]) -> dict[str, Any]:
    done = [answer.done for answer in answers if answer.done]
    prompt, completion = sum(d.prompt_tokens for d in done), sum(d.completion_tokens for d in done)
    cached = sum(d.cached_tokens for d in done)
    prefilled, prompt_seconds = prompt - cached, sum(d.prompt_seconds for d in done)
    seconds = sum(d.completion_seconds for d in done)
    return {
        "text": answers[-1].content,
        "reasoning": answers[-1].reasoning or None,
        "tool_calls": ran,
        "finish_reason": done[-1].reason if done else None,
        "usage": {
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "completion_tokens": completion,
            "reasoning_tokens": sum(d.reasoning_tokens for d in done),
            "drafted_tokens": sum(d.drafted_tokens for d in done),
            "accepted_tokens": sum(d.accepted_tokens for d in done),
            "total_tokens": prompt + completion,
        },
        "timings": {
            "prompt_ms": round(prompt_seconds * 1000, 2),
            "prompt_per_second": _rate(prefilled, prompt_seconds),
            "predicted_ms": round(seconds * 1000, 2),
            "predicted_per_second": _rate(completion, seconds),
        },
    }


def _rate(tokens: int, seconds: float) -> float | None:
    """Tokens per second, None where nothing was timed."""
    return round(tokens / seconds, 1) if tokens and seconds > 0 else None
