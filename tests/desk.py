"""A scheduler with a real model, driven by hand: ask, step, look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

from hermes_cli.engine.embedded.grammar import Matcher
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.engine.embedded.saved_prefixes import SavedPrefixes
from hermes_cli.engine.embedded.scheduler import Scheduler
from hermes_cli.engine.embedded.sequence import Job
from hermes_cli.engine.embedded.speculation import DraftModel
from hermes_cli.engine.embedded.vocabulary import closing_tokens, prompt_tokens
from hermes_cli.engine.protocol import Done, Event, TextEvent
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.errors import HermesError
from hermes_cli.gguf.types import KvType
from hermes_cli.planning.memory import ContextSettings

T = TypeVar("T")

GREEDY = SamplingOptions(temperature=0)


def turn(text: str, system: str = "You are Hermes Demo.") -> str:
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def finish(steps: Generator[None, None, T]) -> T:
    """Do all steps of some work; its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Desk:
    """Collects what a scheduler emits, by request."""

    def __init__(
        self,
        model: LlamaModel,
        context: int = 1024,
        slots: int = 4,
        *,
        micro_batch: int = 512,
        draft: DraftModel | None = None,
        saved: Path | None = None,
        k_type: KvType = "f16",
        v_type: KvType = "f16",
        **options: Any,  # noqa: ANN401 - as Scheduler takes them
    ) -> None:
        self.model = model
        settings = ContextSettings(context, slots, micro_batch, k_type=k_type, v_type=v_type)
        self.context = LlamaContext(model, settings, threads=1)
        owners = options.pop("owners", None)
        self._saved = prefixes = SavedPrefixes(saved, self.context, 1 << 30, owners) if saved else None
        self.scheduler = Scheduler(model, self.context, self._take, slots=slots, draft=draft, saved=prefixes, **options)
        self.events: dict[int, list[Event | HermesError]] = defaultdict(list)
        self._last = 0

    def _take(self, number: int, event: Event | HermesError) -> None:
        self.events[number].append(event)

    def ask(self, prompt: str | list[int], matcher: Matcher | None = None, **asked: Any) -> int:  # noqa: ANN401
        """Submit a request; its id."""
        self._last += 1
        given = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        request = GenerationRequest(given, **{"sampling": GREEDY, **asked})
        tokens = finish(prompt_tokens(self.model.vocabulary, request.prompt, context=1024))
        closing = closing_tokens(self.model.vocabulary, request.reasoning)
        if self._saved:
            self._saved.check(request.client, tokens)
        self.scheduler.submit(Job(self._last, request, tokens, matcher, closing))
        return self._last

    def run(self, steps: int = 5000) -> Desk:
        """Step until nothing is left to do."""
        for _ in range(steps):
            if not self.scheduler.busy:
                return self
            self.scheduler.step()
        raise AssertionError(f"still busy after {steps} steps: {self.scheduler.stats()}")

    def answer(self, prompt: str | list[int], **asked: Any) -> tuple[str, Done]:  # noqa: ANN401
        """Ask and wait."""
        number = self.ask(prompt, **asked)
        self.run()
        return self.text(number), self.done(number)

    def text(self, number: int) -> str:
        return "".join(event.text for event in self.events[number] if isinstance(event, TextEvent))

    def done(self, number: int) -> Done:
        event = self.events[number][-1]
        assert isinstance(event, Done), event
        return event

    def error(self, number: int) -> HermesError:
        event = self.events[number][-1]
        assert isinstance(event, HermesError), event
        return event
