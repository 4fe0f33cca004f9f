"""SGLang, which takes token ids at `/v1/completions` as vLLM does.

Its fields: sglang/srt/entrypoints/openai/protocol.py, `CompletionRequest`.
Its `/generate` would tell more, but repeats the whole answer in each event of a stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from hermes_cli.engine.protocol import EngineStats, Logprob, TokenLogprobs
from hermes_cli.engine.upstream.dialect import TokenCompletion
from hermes_cli.engine.upstream.vllm import VLLM, Metrics, ranked, total


class SGLang(VLLM):
    """Implements `Dialect` for SGLang."""

    name = "sglang"
    title = "SGLang"
    stopped_by = "matched_stop"
    start_hint = "have it started with --grammar-backend llguidance, or run the model in this program."

    def held(self, lark: str) -> dict[str, Any]:
        """Return the field for a grammar."""
        return {"ebnf": lark}

    def body(self, completion: TokenCompletion) -> dict[str, Any]:
        """Return the body of a request."""
        theirs = {"spaces_between_special_tokens", "return_tokens_as_token_ids"}
        return {name: value for name, value in super().body(completion).items() if name not in theirs}

    def logprobs(self, choice: Mapping[str, Any], top: int) -> Iterator[TokenLogprobs]:
        """Yield the log-probabilities of the tokens of an event; of alternatives it tells texts, and no ids."""
        told, ids = choice.get("logprobs") or {}, choice.get("token_ids") or ()
        numbers, places = told.get("token_logprobs") or (), told.get("top_logprobs") or ()
        for at, (token, number) in enumerate(zip(ids, numbers, strict=False)):
            alternatives = ranked(places[at] if at < len(places) else None, top)
            chosen = Logprob(token, self.facts.piece(token), float(number))
            yield TokenLogprobs(chosen, tuple(self._of_text(*pair) for pair in alternatives))

    def _of_text(self, text: str, number: float) -> Logprob:
        token = self._by_text.get(text, -1)
        return Logprob(token, text.encode() if token < 0 else self.facts.piece(token), float(number))

    @cached_property
    def _by_text(self) -> dict[str, int]:
        return {self.facts.piece(token).decode("utf-8", "replace"): token for token in reversed(range(self.facts.size))}

    def counted(self, metrics: Metrics) -> EngineStats:
        """Return the counters among the metrics, which it has with `--enable-metrics`."""
        return EngineStats(
            queued=total(metrics, "sglang:num_queue_reqs"),
            cache_cells=total(metrics, "sglang:max_total_num_tokens"),
            cache_used=total(metrics, "sglang:num_used_tokens"),
        )
