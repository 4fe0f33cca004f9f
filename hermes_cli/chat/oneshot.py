"""One question from the command line: its answer on standard output, everything about it on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hermes_cli.chat.agent_loop import AgentResult
    from hermes_cli.chat.backend import ChatBackend
    from hermes_cli.chat.options import ChatOptions
    from hermes_cli.chat.view import ToolResult, TurnResult
    from hermes_cli.console import Console
    from hermes_cli.generation import ToolCall

SHOWN_CHARACTERS = 500  # of a tool's result on the terminal; the model gets more of it


class PlainView:
    """Shows turns as they come, as text alone: a pipe may read it."""

    def __init__(
        self, console: Console, partner: ChatBackend, manner: ChatOptions, *, hide_thinking: bool = False
    ) -> None:
        self._console, self._partner, self._manner = console, partner, manner
        self._hide_thinking = hide_thinking

    def waiting(self) -> None:
        """Nothing is shown."""

    def reasoning(self, text: str) -> None:
        """It is shown when it is whole, since the answer may be piped away between its pieces."""

    def content(self, text: str) -> None:
        """On standard output, at once."""
        self._console.text(text)

    def calling(self, name: str) -> None:
        """Calls are shown when they are whole."""

    def turn(self, answer: TurnResult, *, stopped: bool) -> None:
        """Calls, reasoning, and why the answer ended where it is not by itself."""
        console = self._console
        console.end_line()
        if stopped:
            return
        for call in answer.calls:
            console.note(f"→ {call}", style="cyan")
        if answer.reasoning and not self._hide_thinking:
            console.note(f"(thought: {answer.reasoning.strip()})")
        if answer.done and answer.done.reason == "length":
            limit, more = f"--max-tokens {self._manner.max_tokens}", ""
            if answer.done.context_full:
                of = f" of {self._partner.context:,} tokens" if self._partner.context else ""
                limit, more = f"the context{of}", "; --context-shift would go on"
            console.warn(f"the answer was cut off: {limit} is used up{more}.")

    def result(self, call: ToolCall, result: ToolResult) -> None:  # noqa: ARG002 - the call was shown
        """The beginning of it."""
        left_out = len(result.text) - SHOWN_CHARACTERS
        more = f" … and {left_out:,} characters more" if left_out > 0 else ""
        self._console.note(f"← {result.text[:SHOWN_CHARACTERS]}{more}", style="red" if result.failed else "green")

    def note(self, message: str) -> None:
        """On standard error."""
        self._console.note(message)

    def warn(self, message: str) -> None:
        """On standard error."""
        self._console.warn(message)


def document(outcome: AgentResult, *, tools: bool) -> dict[str, Any]:
    """What `--json` prints of an answer.

    Args:
        outcome: what the question led to.
        tools: whether there was something to run calls with; without, they are told as they are.

    Returns:
        text, reasoning, tool_calls with results, finish_reason, usage (tokens of all turns together) and timings
        (milliseconds and tokens per second, measured).
    """
    answers = outcome.answers
    calls = [{"name": one.call.name, "arguments": one.call.arguments, "result": one.result.text} for one in outcome.ran]
    if not tools:
        calls = [{"name": call.name, "arguments": call.arguments} for call in answers[-1].calls]
    done = [answer.done for answer in answers if answer.done]
    prompt, completion = sum(d.prompt_tokens for d in done), sum(d.completion_tokens for d in done)
    cached = sum(d.cached_tokens for d in done)
    prefilled, prompt_seconds = prompt - cached, sum(d.prompt_seconds for d in done)
    seconds = sum(d.completion_seconds for d in done)
    return {
        "text": answers[-1].content,
        "reasoning": answers[-1].reasoning or None,
        "tool_calls": calls,
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
