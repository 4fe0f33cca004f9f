"""vLLM, which takes token ids at `/v1/completions`; its fields: vllm/entrypoints/openai/completion/protocol.py.

Each request states every sampling option, so that no default of the server's or of `generation_config.json` counts.
Tokens that end a turn are stated, too: they come from the tokenizer's files.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from hermes_cli.engine.protocol import EngineStats, Logprob, ModelInfo, TokenLogprobs
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.engine.upstream.dialect import Chunk, Ending, TokenCompletion, check_common, lark_of, refuse
from hermes_cli.engine.upstream.http import UpstreamClient, UpstreamError
from hermes_cli.engine.upstream.served_tokenizer import ServedTokenizer
from hermes_cli.engine.upstream.tokenizer_files import TokenizerFacts
from hermes_cli.errors import HermesError, UsageError

SLOTS = 256  # its `--max-num-seqs` where nobody set it; it does not tell
LARK = "start: T\nT: /a+/ & /[ab]+/"  # what only llguidance takes
MOST_BIAS = 100.0  # it cuts biases there, and JSON has no infinity
LEAST_TOP_P = 1e-6  # 0 is refused, and means the likeliest token
_UTF8 = codecs.getincrementaldecoder("utf-8")
_ENDINGS = {"stop", "length"}
_METRIC = re.compile(r"^((?:vllm|sglang):\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'\b(\w+)="([^"]*)"')
Metrics = Mapping[str, Sequence[tuple[dict[str, str], float]]]


class VLLM:
    """Implements `Dialect` for vLLM."""

    name = "vllm"
    title = "vLLM"
    stopped_by = "stop_reason"  # the field with the stop text or the end token
    start_hint = "have it started with --structured-outputs-config.backend guidance, or run the model in this program."

    def __init__(self, client: UpstreamClient, listed: Mapping[str, Any], facts: TokenizerFacts) -> None:
        """Take the model's entry of `/v1/models`, and what its tokenizer's files say."""
        self._client, self.facts = client, facts
        self.model = str(listed["id"])
        self._context = int(listed["max_model_len"])
        self._tokenizer = ServedTokenizer(client, self.model, facts)
        self._takes_lark = False
        self.tokenize = self._tokenizer.tokenize
        self.adds_space = not facts.byte_level

    async def model_info(self, tags: Sequence[str], texts: Sequence[str]) -> ModelInfo:  # noqa: ARG002 - files tell all
        """Return the facts about the model; of `tags` those count that are one token."""
        await self._tokenizer.check()
        facts, every = self.facts, {**self.facts.added, **self.facts.control}
        single = {tag: every[tag] for tag in tags if tag in every}
        self._takes_lark = await self._accepts_lark()
        return ModelInfo(
            context=self._context,
            slots=SLOTS,
            trained_context=facts.trained_context or self._context,
            parameters=facts.parameters,
            weight_bytes=0,
            vocabulary=facts.size,
            templates=facts.templates,
            sampling=facts.sampling,
            bos=facts.bos,
            eos=facts.eos,
            adds_bos=await self._tokenizer.begins_with_bos(),
            control=tuple(facts.control),
            added=tuple(facts.added),
            tags=single,
            others=facts.others(tags),
            grammars=self._takes_lark,
        )

    async def _accepts_lark(self) -> bool:
        """Return whether grammars are llguidance's: xgrammar, the first choice of `auto`, fails at some of ours."""
        body = {"model": self.model, "prompt": [max(self.facts.ends, default=1)], "max_tokens": 1, "temperature": 0}
        try:
            await self._client.post("/v1/completions", body | self.held(LARK))
        except UpstreamError:
            return False
        return True

    def held(self, lark: str) -> dict[str, Any]:
        """Return the field for a grammar."""
        return {"structured_outputs": {"grammar": lark}}

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes of tokens."""
        return b"".join(map(self.facts.piece, tokens))

    def check(self, request: GenerationRequest) -> None:
        """Raise UsageError if the request wants what vLLM does not have."""
        check_common(self.title, request)
        check_sampling(self.title, request.sampling)
        if request.grammar is not None and not self._takes_lark:
            raise UsageError(
                f"this {self.title} cannot hold an answer to a schema, a grammar or required tools: its grammars are "
                "not llguidance's.",
                hint=self.start_hint,
            )

    async def complete(self, completion: TokenCompletion) -> AsyncGenerator[Chunk, None]:
        """Yield a completion; the last chunk has its ending.

        Tokens without text yet wait for the next event. An end token is none of the completion's.
        """
        top, last = completion.request.top_logprobs, None
        text, texts, ids, logprobs = "", list[str](), list[int](), list[TokenLogprobs]()
        async with aclosing(self._client.stream("/v1/completions", self.body(completion))) as batches:
            async for batch in batches:
                for event in batch:
                    for choice in event["choices"]:
                        told = choice.get("token_ids") or ()
                        text += choice["text"]
                        ids += told
                        texts += (choice["text"],) if len(told) == 1 else self._texts(told, choice["text"])
                        if top is not None:
                            logprobs += self.logprobs(choice, top)
                        if (reason := choice["finish_reason"]) is not None:
                            last = _finished(reason, choice.get(self.stopped_by))
                            if not last.is_cut and last.stop is None and ids:  # ended by a token, which is the last one
                                del ids[-1], texts[-1:], logprobs[len(ids) :]
                    if usage := event.get("usage"):
                        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                        last = last and replace(last, cached_tokens=int(cached))
                if text or (last and ids):
                    each = tuple(texts) if len(texts) == len(ids) else ()
                    yield Chunk(text, len(ids), tuple(ids), tuple(logprobs), texts=each)
                    text, texts, ids, logprobs = "", [], [], []
        if last is None:
            raise UpstreamError(500, "the stream ended before the answer did")
        yield Chunk(ending=last)

    def _texts(self, ids: Sequence[int], text: str) -> tuple[str, ...]:
        """Return the text of each of several tokens that came together, if those are all of it."""
        decoder = _UTF8(errors="replace")
        texts = tuple(decoder.decode(self.facts.piece(token)) for token in ids)
        return texts if "".join(texts) == text else ()

    def body(self, completion: TokenCompletion) -> dict[str, Any]:
        """Return the body of a request."""
        request, prompt = completion.request, completion.prompt
        room = self._context - len(prompt)
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": room if completion.max_tokens is None else min(completion.max_tokens, room),
            **sampling_fields(request.sampling),
            "stop": list(request.stops),
            "stop_token_ids": [] if request.sampling.ignore_eos else sorted(self.facts.ends),
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        if request.top_logprobs is not None:
            body |= {"logprobs": request.top_logprobs, "return_tokens_as_token_ids": True}
        if request.grammar is not None:
            body |= self.held(lark_of(self.title, request.grammar))
        return body

    def logprobs(self, choice: Mapping[str, Any], top: int) -> Iterator[TokenLogprobs]:
        """Yield the log-probabilities of the tokens of an event."""
        told = choice.get("logprobs") or {}
        places = told.get("top_logprobs") or ()
        pairs = zip(told.get("tokens") or (), told.get("token_logprobs") or (), strict=True)
        for at, (token, number) in enumerate(pairs):
            alternatives = ranked(places[at] if at < len(places) else None, top)
            yield TokenLogprobs(self._logprob(token, number), tuple(self._logprob(*pair) for pair in alternatives))

    def _logprob(self, token: str, number: float) -> Logprob:
        value = int(token.removeprefix("token_id:"))
        return Logprob(value, self.facts.piece(value), float(number))

    async def stats(self) -> EngineStats:
        """Return what its `/metrics` say of all its clients together; nothing where it has none."""
        try:
            metrics = read_metrics(await self._client.get_text("/metrics"))
        except (UpstreamError, HermesError):
            return EngineStats()
        return self.counted(metrics)

    def counted(self, metrics: Metrics) -> EngineStats:
        """Return the counters among the metrics; those of several data parallel engines are added up."""
        cells = [
            _number(labels.get("block_size")) * _number(labels.get("num_gpu_blocks"))
            for labels, _ in metrics.get("vllm:cache_config_info", ())
        ]
        usage = [value for _, value in metrics.get("vllm:kv_cache_usage_perc", ())]
        return EngineStats(
            queued=total(metrics, "vllm:num_requests_waiting"),
            cache_cells=int(sum(cells)),
            cache_used=int(sum(size * used for size, used in zip(cells, usage, strict=False))),
            preempted=total(metrics, "vllm:num_preemptions_total"),
            drafted_tokens=total(metrics, "vllm:spec_decode_num_draft_tokens_total"),
            accepted_tokens=total(metrics, "vllm:spec_decode_num_accepted_tokens_total"),
        )


def ranked(place: Mapping[str, float] | None, top: int) -> list[tuple[str, float]]:
    """Return the likeliest tokens in a place with their log-probabilities."""
    return sorted((place or {}).items(), key=lambda pair: -pair[1])[:top]


def read_metrics(text: str) -> Metrics:
    """Return the labels and values of each metric, by name (the text format of Prometheus)."""
    metrics: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in _METRIC.findall(text):
        metrics.setdefault(name, []).append((dict(_LABEL.findall(labels)), _number(value)))
    return metrics


def total(metrics: Metrics, name: str) -> int:
    """Return the sum of a metric over all its labels."""
    return int(sum(value for _, value in metrics.get(name, ())))


def check_sampling(title: str, sampling: SamplingOptions) -> None:
    """Raise UsageError for samplers that vLLM and SGLang lack."""
    free = SamplingOptions()
    wanted = {
        "typical_p": sampling.typical_p != free.typical_p,
        "mirostat": bool(sampling.mirostat),
        "dry_multiplier": bool(sampling.dry_multiplier),
        # theirs look at all that was written; for hermes' own default nobody has asked
        "penalty_last_n": sampling.penalty_last_n not in {free.penalty_last_n, -1} and _penalizes(sampling),
    }
    if names := [name for name, is_wanted in wanted.items() if is_wanted]:
        raise refuse(title, " and ".join(names))


def _penalizes(sampling: SamplingOptions) -> bool:
    return sampling.repeat_penalty != 1 or bool(sampling.presence_penalty or sampling.frequency_penalty)


def sampling_fields(sampling: SamplingOptions) -> dict[str, Any]:
    """Return the sampling options as fields of `/v1/completions`."""
    fields = {
        "temperature": sampling.temperature,
        "top_k": max(sampling.top_k, 0) or -1,
        "top_p": max(sampling.top_p, LEAST_TOP_P),
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "ignore_eos": sampling.ignore_eos,
        "logit_bias": {str(token): max(bias, -MOST_BIAS) for token, bias in sampling.logit_bias},
    }
    return fields if sampling.seed is None else fields | {"seed": sampling.seed}


def _finished(reason: str, stop: object) -> Ending:
    """Return the ending of a completion; raise UpstreamError if a fault ended it."""
    if reason not in _ENDINGS:
        raise UpstreamError(500, f"it ended the answer: {reason}")
    return Ending(is_cut=reason == "length", stop=stop if isinstance(stop, str) else None)


def _number(text: str | None) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
