"""An active request: its tokens, the sampling of the next ones, and the text that they make."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.engine.embedded.grammar import Matcher, apply_mask
from hermes_cli.engine.embedded.kv_cache import common_prefix
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.sampler import Sampler, token_logprobs
from hermes_cli.engine.embedded.speculation import DraftAcceptance, PromptLookup
from hermes_cli.engine.embedded.vocabulary import TokenPieces
from hermes_cli.engine.output_text import ReasoningTracker, StopTexts
from hermes_cli.engine.protocol import Done, FinishReason, Logprob, TextEvent, TokenLogprobs
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_SEQUENCE = -1
MOST_PROMPT_LOGPROBS = 1 << 17  # of one prompt: some 200 bytes each for whoever collects them
FORCED_AT_ONCE = 64  # tokens that a running request may feed in one step beside the one that was drawn
INDEXED_AT_ONCE = 8192  # tokens that the lookup learns in one step, 5 ms


@dataclass(frozen=True)
class Job:
    """A request with its tokens and the state of its grammar, ready for the scheduler; `id` is its number in events.

    `closing` has, by closing tag, the tokens that end reasoning whose budget is used up.
    """

    id: int
    request: GenerationRequest
    prompt: list[int]
    matcher: Matcher | None = None
    closing: Mapping[str, Sequence[int]] = field(default_factory=dict)


class ActiveSequence:
    """A request from its admission to its end; it may be preempted in between."""

    def __init__(self, job: Job, model: LlamaModel, pieces: TokenPieces, context: int, *, lookup: bool) -> None:
        told = len(job.prompt) * ((job.request.prompt_logprobs or 0) + 1)
        if job.request.prompt_logprobs is not None and told > MOST_PROMPT_LOGPROBS:
            reason = f"would tell {told:,} log-probabilities, more than {MOST_PROMPT_LOGPROBS:,}."
            raise UsageError(reason, field="prompt_logprobs", hint="ask for fewer, or shorten the prompt.")
        self.job = job
        self.tokens = list(job.prompt)  # and the completion so far
        self.sequence = NO_SEQUENCE  # its id in the KV cache; this while it waits
        self.cached = 0  # how many of `tokens` are in the KV cache
        self.drafts: list[int] = []  # tokens behind `tokens` in the current batch
        self.scheduled = 0  # how many of `tokens` behind the cached ones the current batch has
        self.outputs = 0  # the index of its first output in the current batch
        self.ended: FinishReason | None = None  # the reason of its end
        self.full = False  # it ended, or is to be shifted, because the context length is used up
        self.leader: ActiveSequence | None = None  # whose prompt it waits for, because it shares the beginning
        self.shared = 0
        self.lookup = PromptLookup() if lookup and job.request.speculate else None
        self.acceptance = DraftAcceptance()
        self.generated = 0
        self._vocabulary, self._pieces, self._context = model.vocabulary, pieces, context
        self._sampler = Sampler(job.request.sampling, model.vocabulary, model.trained_context, job.prompt)
        self._matcher = job.matcher
        reasoning = job.request.reasoning
        self._reasoning = ReasoningTracker(reasoning, job.closing) if reasoning else None
        self._stops = StopTexts(job.request.stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._unreported = 0  # tokens since the last event
        self._logprobs: list[TokenLogprobs] = []
        self._prompt_logprobs: list[TokenLogprobs] = []  # since the last event
        self._read = 0  # tokens of the prompt with log-probabilities
        self._cached_tokens: int | None = None
        self._drafted = self._accepted = 0
        self._by_draft_model = False  # the drafts are the draft model's
        self._created = time.perf_counter()
        self._started = self._first_output = 0.0
        self._indexed = 0  # tokens that the lookup knows

    @property
    def pending(self) -> int:
        """The number of tokens that are not in the KV cache yet; the last one gives the next output."""
        return len(self.tokens) - self.cached

    @property
    def unread(self) -> bool:
        """True while log-probabilities of its prompt are to be told."""
        return self.job.request.prompt_logprobs is not None and self._read < len(self.job.prompt)

    def read_prompt(self, outputs: NDArray[np.float32] | None) -> None:
        """Note the log-probabilities of the tokens behind those of the current batch, which all have outputs then."""
        if outputs is None or not self.unread:
            return
        prompt, top = self.job.prompt, self.job.request.prompt_logprobs or 0
        if not self._read:
            self._prompt_logprobs.append(TokenLogprobs(Logprob(prompt[0], self._pieces[prompt[0]].bytes, 0.0)))
            self._read = 1
        for at in range(self.cached + 1, min(self.cached + 1 + self.scheduled, len(prompt))):
            if at == self._read:  # it may be preempted, and read again
                row = outputs[self.outputs + at - self.cached - 1]
                self._prompt_logprobs.append(token_logprobs(row, prompt[at], top, self._vocabulary))
                self._read += 1
        self.outputs += self.scheduled - 1  # the next token is sampled from the last one

    @property
    def decoding(self) -> bool:
        """True while it generates; else its prompt is being prefilled, in chunks."""
        return self.generated > 0 and self.pending <= FORCED_AT_ONCE

    @property
    def remaining(self) -> int:
        """The number of tokens that may still be generated."""
        left = self._context - len(self.tokens)
        limit = self.job.request.max_tokens
        return left if limit is None else min(left, limit - self.generated)

    def admit(self, sequence: int, cached_tokens: int) -> None:
        """Record its sequence and how many of its tokens are in the KV cache."""
        self.sequence, self.cached, self.leader = sequence, cached_tokens, None
        if self._cached_tokens is None:
            self._cached_tokens, self._started = cached_tokens, time.perf_counter()

    def release(self) -> None:
        """Record that it has lost its sequence."""
        self.sequence, self.cached, self.drafts = NO_SEQUENCE, 0, []

    def in_batch(self) -> list[int]:
        """Return its tokens in the current batch, drafts included."""
        return self.tokens[self.cached : self.cached + self.scheduled] + self.drafts

    def draft_by_lookup(self, limit: int, draft_length: Callable[[float, int], int]) -> None:
        """Draft up to `limit` tokens by prompt lookup, as far as a grammar allows them.

        `draft_length` gives the number of drafts that pay, from their acceptance rate and the limit.
        """
        if not self.lookup:
            return
        self.lookup.extend(self.tokens[self._indexed : self._indexed + INDEXED_AT_ONCE])
        self._indexed = min(self._indexed + INDEXED_AT_ONCE, len(self.tokens))
        if self._indexed == len(self.tokens) and (count := draft_length(self.lookup.acceptance_rate, limit)):
            self.drafts = self._allowed(self.lookup.draft(count))

    def use_drafts(self, drafts: list[int]) -> None:
        """Take the tokens of the draft model, as far as a grammar allows them."""
        self.drafts = self._allowed(drafts)
        self._by_draft_model = bool(self.drafts)

    def _allowed(self, drafts: list[int]) -> list[int]:
        """Return the drafts before the first one that the grammar refuses."""
        return drafts[: self._matcher.acceptable(drafts)] if self._matcher and drafts else drafts

    def advance(self, outputs: NDArray[np.float32]) -> int:
        """Sample at one output after the other (the last of `tokens` and each draft), as long as drafts are accepted.

        Return the number of accepted drafts; the KV cache has to be truncated behind them.
        """
        drafts, accepted = self.drafts, 0
        self._first_output = self._first_output or time.perf_counter()
        if self.remaining <= 0:  # only the prompt was to be read
            self.ended = "length"
        while not self.ended:
            chosen = self._choose(outputs[accepted])
            if not chosen:
                self.ended = "stop"
            matched = common_prefix(chosen, drafts[accepted : accepted + len(chosen)])
            for token in chosen:
                if not self.ended:
                    self._take(token)
            accepted += matched
            if self.ended or matched < len(chosen):
                break
        accepted = min(accepted, len(self.tokens) - self.cached)
        self.cached += accepted
        self.drafts = []
        if drafts:
            self._drafted += len(drafts)
            self._accepted += accepted
            if self._by_draft_model:
                self.acceptance.record(len(drafts), accepted)
            self._by_draft_model = False
        return accepted

    def shift(self) -> None:
        """Drop the older half of the tokens behind those to be kept; the rest has to be computed anew."""
        keep = min(self.job.request.keep, self._context // 2)
        dropped = (len(self.tokens) - keep) // 2
        del self.tokens[keep : keep + dropped]
        self.full = False
        if self.lookup:
            self.lookup, self._indexed = PromptLookup(), 0

    def take_text(self, *, last: bool = False) -> TextEvent | None:
        """Return the text since the last call as an event; None if there is none."""
        if last and self._stops.matched is None and (text := self._stops.feed(self._decoder.decode(b"", final=True))):
            self._text.append(text)
        if last:
            self._text.append(self._stops.finish())
        text = "".join(self._text)
        if not text and not self._logprobs and not self._prompt_logprobs and not (last and self._unreported):
            return None
        logprobs, prompt = tuple(self._logprobs), tuple(self._prompt_logprobs)
        cut = self._reasoning is not None and self._reasoning.cut
        event = TextEvent(text, self._unreported, logprobs, prompt, reasoning_cut=cut)
        self._text, self._unreported, self._logprobs, self._prompt_logprobs = [], 0, [], []
        return event

    def done(self) -> Done:
        """Return the final event."""
        now = time.perf_counter()
        started = self._started or now
        first_output = self._first_output or now
        return Done(
            reason=self.ended or "length",
            prompt_tokens=len(self.job.prompt),
            cached_tokens=self._cached_tokens or 0,
            completion_tokens=self.generated,
            prompt_seconds=first_output - started,
            completion_seconds=now - first_output,
            queued_seconds=started - self._created,
            reasoning_tokens=self._reasoning.tokens if self._reasoning else 0,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            stop=self._stops.matched,
            context_full=self.full,
        )

    def close(self) -> None:
        """Free its sampler."""
        self._sampler.close()

    def _choose(self, logits: NDArray[np.float32]) -> Sequence[int]:
        """Return the sampled token and those forced behind it, or only forced ones; none at the end of a grammar."""
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
        """Return tokens that come next whatever the model would choose; they are accepted already."""
        matcher = self._matcher
        tokens = self._reasoning.due() if self._reasoning else ()
        if not tokens and matcher and not matcher.finished:
            tokens = matcher.forced()[:FORCED_AT_ONCE]
        tokens = tokens[: self.remaining]
        for token in tokens:
            if matcher:
                matcher.accept(token)
            self._sampler.accept(token)
            if self.job.request.top_logprobs is not None:  # no other could come
                self._logprobs.append(TokenLogprobs(Logprob(token, self._pieces[token].bytes, 0.0)))
        return tokens

    def _take(self, token: int) -> None:
        """Append a token, unless it ends the completion."""
        piece = self._pieces[token]
        if piece.ends:
            self.ended = "stop"
            return
        self.tokens.append(token)
        self.generated += 1
        self._unreported += 1
        text = self._decoder.decode(piece.bytes)
        if self._reasoning:
            self._reasoning.read(text)
        if text and (text := self._stops.feed(text)):
            self._text.append(text)
        if self._stops.matched is not None:
            self.ended = "stop"
        elif self.remaining <= 0:
            self.full = len(self.tokens) >= self._context
            limit = self.job.request.max_tokens
            more = limit is None or self.generated < limit
            if not (self.full and self.job.request.shift and more):
                self.ended = "length"
