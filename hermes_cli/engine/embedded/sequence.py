"""One request at work: its tokens, how the next ones are chosen, and the text that comes of them."""

from __future__ import annotations

import codecs
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.grammar import apply_mask
from hermes_cli.engine.embedded.output_text import ReasoningTracker, StopTexts
from hermes_cli.engine.embedded.prompt_lookup import PromptLookup
from hermes_cli.engine.embedded.sampler import Sampler, token_logprobs
from hermes_cli.engine.embedded.step_cost import Acceptance
from hermes_cli.engine.protocol import Done, Logprob, TextEvent, TokenLogprobs
from hermes_cli.engine.tokens import common_prefix
from hermes_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hermes_cli.engine.embedded.grammar import Matcher
    from hermes_cli.engine.embedded.llama import LlamaModel
    from hermes_cli.engine.embedded.vocabulary import TokenPieces
    from hermes_cli.engine.protocol import FinishReason
    from hermes_cli.engine.request import GenerationRequest

FORCED_AT_ONCE = 64  # tokens that a running request may feed in one step beside the one that was drawn
INDEXED_AT_ONCE = 8192  # tokens that the lookup learns in one step, 5 ms


@dataclass(frozen=True)
class Job:
    """A request made ready for the model.

    Attributes:
        id: who gets its events.
        request: what was asked.
        prompt: its tokens.
        matcher: its grammar at the beginning, None if there is none.
        closing: by closing tag, the tokens that end reasoning whose budget is used up.
    """

    id: int
    request: GenerationRequest
    prompt: list[int]
    matcher: Matcher | None = None
    closing: Mapping[str, Sequence[int]] = field(default_factory=dict)


class ActiveSequence:
    """A request from its admission to its end; it may be put back in between.

    Attributes:
        job: what it answers.
        tokens: prompt and answer as far as it has been chosen.
        sequence: its place in the cache, None while it waits.
        cached: how many of `tokens` are in the cache.
        drafts: guessed tokens that the current batch has behind `tokens`.
        fed: how many of `tokens` behind the cached ones the current batch has.
        outputs: the number of the first of its outputs in the current batch.
        ended: why it ended, None while it goes on.
        full: it ended, or is to be shifted, because the context length is used up.
    """

    def __init__(self, job: Job, model: LlamaModel, pieces: TokenPieces, context: int, *, lookup: bool) -> None:
        self.job = job
        self.tokens = list(job.prompt)
        self.sequence: int | None = None
        self.cached = 0
        self.drafts: list[int] = []
        self.fed = self.outputs = 0
        self.ended: FinishReason | None = None
        self.full = False
        self.leader: ActiveSequence | None = None  # whose prompt it waits for, because it shares the beginning
        self.shared = 0
        self.lookup = PromptLookup() if lookup and job.request.speculate else None
        self.acceptance = Acceptance()
        self.generated = 0
        self._vocabulary, self._pieces, self._context = model.vocabulary, pieces, context
        self._sampler = Sampler(job.request.sampling, model.vocabulary, model.trained_context)
        self._matcher = job.matcher
        reasoning = job.request.reasoning
        self._reasoning = ReasoningTracker(reasoning, job.closing) if reasoning else None
        self._stops = StopTexts(job.request.stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._unsaid = 0  # tokens since the last event
        self._logprobs: list[TokenLogprobs] = []
        self._reused: int | None = None
        self._drafted = self._accepted = 0
        self._by_model = False  # who made the drafts
        self._born = time.perf_counter()
        self._started = self._prompted = 0.0
        self._indexed = 0  # tokens that the lookup knows
        if job.request.sampling.penalizes:
            for token in job.prompt:
                self._sampler.accept(token)

    @property
    def place(self) -> int:
        """Its sequence, of which it is known that it has one.

        Raises:
            EngineError: it has none.
        """
        if self.sequence is None:
            raise EngineError("a waiting request was put to work.", hint="this is a bug in hermes; please report it.")
        return self.sequence

    @property
    def behind(self) -> int:
        """Tokens that are not in the cache yet; the last one gives the next output."""
        return len(self.tokens) - self.cached

    @property
    def decoding(self) -> bool:
        """Whether it writes already; else its prompt is being read, in chunks."""
        return self.generated > 0 and self.behind <= FORCED_AT_ONCE

    @property
    def room(self) -> int:
        """Tokens that may still come."""
        left = self._context - len(self.tokens)
        most = self.job.request.max_tokens
        return left if most is None else min(left, most - self.generated)

    def admit(self, sequence: int, reused: int) -> None:
        """It has a place in the cache, and so many of its tokens are there."""
        self.sequence, self.cached, self.leader = sequence, reused, None
        if self._reused is None:
            self._reused, self._started = reused, time.perf_counter()

    def put_back(self) -> None:
        """It has no place in the cache any more; nothing else is lost."""
        self.sequence, self.cached, self.drafts = None, 0, []

    def in_batch(self) -> list[int]:
        """Its tokens in the current batch."""
        return self.tokens[self.cached : self.cached + self.fed] + self.drafts

    def guess(self, most: int, length: Callable[[float, int], int]) -> None:
        """Draft what the conversation suggests to come next, as far as a grammar allows it.

        Args:
            most: tokens.
            length: how many pay, for the chance that one is right and the most.
        """
        if not self.lookup:
            return
        self.lookup.extend(self.tokens[self._indexed : self._indexed + INDEXED_AT_ONCE])
        self._indexed = min(self._indexed + INDEXED_AT_ONCE, len(self.tokens))
        if self._indexed == len(self.tokens) and (count := length(self.lookup.chance, most)):
            self.drafts = self._allowed(self.lookup.guess(count))

    def draft(self, guessed: list[int]) -> None:
        """Draft what another model has guessed."""
        self.drafts = self._allowed(guessed)
        self._by_model = bool(self.drafts)

    def _allowed(self, guessed: list[int]) -> list[int]:
        """The first of these tokens, up to the one that the grammar refuses."""
        return guessed[: self._matcher.acceptable(guessed)] if self._matcher and guessed else guessed

    def advance(self, outputs: NDArray[np.float32]) -> int:
        """Choose what follows, at one output after the other as long as drafts turn out right.

        Args:
            outputs: a row of logits for the last of `tokens` and for each draft.

        Returns:
            How many drafts were right; the cache holds those and has to forget the others.

        Raises:
            EngineError: the grammar cannot be met, or the model computed no numbers.
        """
        drafts, right = self.drafts, 0
        self._prompted = self._prompted or time.perf_counter()
        while True:
            chosen = self._choose(outputs[right])
            if not chosen:
                self.ended = "stop"
            hit = common_prefix(chosen, drafts[right : right + len(chosen)])
            for token in chosen:
                if not self.ended:
                    self._take(token)
            right += hit
            if self.ended or hit < len(chosen):
                break
        right = min(right, len(self.tokens) - self.cached)
        self.cached += right
        self.drafts = []
        if drafts:
            self._drafted += len(drafts)
            self._accepted += right
            if self._by_model:
                self.acceptance.note(len(drafts), right)
            self._by_model = False
        return right

    def shift(self) -> None:
        """Leave out the older half of what came after the part that is to be kept; all has to be computed anew."""
        keep = min(self.job.request.keep, self._context // 2)
        dropped = (len(self.tokens) - keep) // 2
        del self.tokens[keep : keep + dropped]
        self.full = False
        if self.lookup:
            self.lookup, self._indexed = PromptLookup(), 0

    def take_text(self, *, last: bool = False) -> TextEvent | None:
        """What has become certain since the last time; None if that is nothing."""
        if last and self._stops.found is None and (text := self._stops.feed(self._decoder.decode(b"", final=True))):
            self._text.append(text)
        if last:
            self._text.append(self._stops.finish())
        text = "".join(self._text)
        if not text and not self._logprobs and not (last and self._unsaid):
            return None
        event = TextEvent(text, self._unsaid, tuple(self._logprobs))
        self._text, self._unsaid, self._logprobs = [], 0, []
        return event

    def done(self) -> Done:
        """The end, as `ended` says."""
        now = time.perf_counter()
        started = self._started or now
        prompted = self._prompted or now
        return Done(
            reason=self.ended or "length",
            prompt_tokens=len(self.job.prompt),
            cached_tokens=self._reused or 0,
            completion_tokens=self.generated,
            prompt_seconds=prompted - started,
            completion_seconds=now - prompted,
            queued_seconds=started - self._born,
            reasoning_tokens=self._reasoning.tokens if self._reasoning else 0,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            stop=self._stops.found,
            context_full=self.full,
        )

    def close(self) -> None:
        """Free its sampler."""
        self._sampler.close()

    def _choose(self, logits: NDArray[np.float32]) -> Sequence[int]:
        """The token that is drawn with all that have to follow it, or only those; none if a grammar allows no more."""
        if forced := self._forced():
            return forced
        matcher, sampler = self._matcher, self._sampler
        if matcher and matcher.finished:
            return []
        top = self.job.request.top_logprobs
        raw = None if top is None else logits.copy()
        sampler.bias(logits)
        token = sampler.draw(logits)
        # Drawing first and masking only what is refused is the same distribution, and most draws are not refused.
        if matcher and not matcher.try_accept(token):
            apply_mask(matcher.mask(), logits)
            token = sampler.draw(logits)
            matcher.accept(token)
        sampler.accept(token)
        if raw is not None and top is not None:
            self._logprobs.append(token_logprobs(raw, token, top, self._vocabulary))
        if matcher and not self._pieces[token].ends:
            return [token, *self._forced()]
        return [token]

    def _forced(self) -> Sequence[int]:
        """Tokens that come next whatever the model would choose; all are accepted already."""
        matcher = self._matcher
        tokens = self._reasoning.due() if self._reasoning else ()
        if not tokens and matcher and not matcher.finished:
            tokens = matcher.forced()
        tokens = tokens[: min(self.room, FORCED_AT_ONCE)]
        for token in tokens:
            if matcher:
                matcher.accept(token)
            self._sampler.accept(token)
            if self.job.request.top_logprobs is not None:  # no other could come
                self._logprobs.append(TokenLogprobs(Logprob(token, self._pieces[token].bytes, 0.0)))
        return tokens

    def _take(self, token: int) -> None:
        """Append a token that was chosen, unless it ends the answer."""
        piece = self._pieces[token]
        if piece.ends:
            self.ended = "stop"
            return
        self.tokens.append(token)
        self.generated += 1
        self._unsaid += 1
        text = self._decoder.decode(piece.bytes)
        if self._reasoning:
            self._reasoning.read(text)
        if text and (text := self._stops.feed(text)):
            self._text.append(text)
        if self._stops.found is not None:
            self.ended = "stop"
        elif self.room <= 0:
            self.full = len(self.tokens) >= self._context
            if not (self.full and self.job.request.shift and self._more_wanted):
                self.ended = "length"

    @property
    def _more_wanted(self) -> bool:
        most = self.job.request.max_tokens
        return most is None or self.generated < most
