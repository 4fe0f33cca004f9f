"""A turn of the model as clients get it, the same whether it is streamed or whole.

A call that was cut off is given as far as it was written. The parser closes its arguments to valid JSON, but a client
that looks at nothing else would run it, and half a command is another command: so that end is left out here, as OpenAI
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.generation import CallArguments, CallFinished, CallStarted, Content, LogprobsEvent, Reasoning
from hermes_cli.server.openai.logprobs import Attribution

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import TokenLogprobs
    from hermes_cli.generation import Event

Sent = Content | Reasoning | CallStarted | CallArguments
"""What is sent: events without their ends."""


class TurnSent:
    """One turn on its way."""

    def __init__(self, *, reasoning: bool = True, logprobs: bool = False) -> None:
        """Nothing is sent yet.

        Args:
            reasoning: the client wants to see it.
            logprobs: it wants to see those of the content.
        """
        self._reasoning, self._logprobs = reasoning, logprobs
        self._attribution = Attribution()
        self._held: CallArguments | None = None  # it may turn out to be nothing but the end of what was cut off
        self._written = False  # whether any arguments of the call at hand were sent

    def feed(self, event: Event) -> list[Sent]:
        """What is to be sent now."""
        if isinstance(event, Content):
            return [event]
        if isinstance(event, Reasoning):
            return self._thought(event)
        if isinstance(event, CallStarted | CallArguments | CallFinished):
            return self._called(event)
        if isinstance(event, LogprobsEvent):
            self._attribution.add(event.logprobs)
        return []

    def logprobs(self, content: Content) -> list[TokenLogprobs] | None:
        """The tokens of content that is sent, to be asked for in its order; None if nobody wants to know."""
        return self._attribution.take(content.text) if self._logprobs else None

    def _thought(self, event: Reasoning) -> list[Sent]:
        if self._logprobs:
            self._attribution.take(event.text)
        return [event] if self._reasoning else []

    def _called(self, event: CallStarted | CallArguments | CallFinished) -> list[Sent]:
        if isinstance(event, CallStarted):
            self._written = False
            return [event]
        before, self._held = self._held, None
        if isinstance(event, CallArguments):
            self._held = event
        else:
            self._attribution.end_call()
            if not event.complete and self._written:
                return []
        self._written = self._written or before is not None
        return [before] if before else []
