"""POST /completion, as llama.cpp's server has it: a prompt that is continued as it stands, in that server's shapes.

It means the same as /v1/completions, but has no limit of tokens by itself. `tokens` of the reply are there if
`return_tokens` or `n_probs` ask for them. What depends on a slot (`id_slot`, `cache_prompt`) changes nothing here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Annotated, Any

import msgspec
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.engine.protocol import Done, Logprob, TextEvent, TokenLogprobs
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.server.openai.completions import generation_requests, parse_completion, text_of
from hermes_cli.server.openai.objects import finite, timings
from hermes_cli.server.openai.requests import (
    MOST_TOP_LOGPROBS,
    CompletionRequest,
    Flag,
    PromptField,
    SharedFields,
    Text,
    Whole,
)
from hermes_cli.server.parsed_request import ParsedRequest
from hermes_cli.server.pool import Pool
from hermes_cli.server.pooled_model import ReadyModel
from hermes_cli.server.request_stats import current_warnings
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import StreamingReply, event, together


class LlamaCompletionRequest(SharedFields):
    """A prompt, in the fields of llama.cpp's server."""

    prompt: PromptField = Field(description="A text, a list of texts, or of token ids and texts.")
    n_probs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = Field(
        None, description="So many alternatives with each token, and their log-probabilities."
    )
    return_tokens: Flag | None = Field(None, description="Tell the token ids of the text.")
    response_fields: list[Text] | None = Field(None, description="Only these fields: `content`, `timings/prompt_n`.")


class LlamaCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A text, or a piece of it; fields from `model` on are in the last one."""

    index: int
    content: str
    tokens: list[int]
    id_slot: int = -1  # slots are nobody's
    stop: bool
    tokens_predicted: int
    tokens_evaluated: int
    completion_probabilities: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    generation_settings: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    prompt: str | msgspec.UnsetType = msgspec.UNSET
    has_new_line: bool | msgspec.UnsetType = msgspec.UNSET
    truncated: bool | msgspec.UnsetType = msgspec.UNSET  # where the context ended the text
    stop_type: str | msgspec.UnsetType = msgspec.UNSET
    stopping_word: str | msgspec.UnsetType = msgspec.UNSET
    tokens_cached: int | msgspec.UnsetType = msgspec.UNSET
    timings: Any = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


async def completion(request: Request, body: LlamaCompletionRequest) -> Response:
    """Continue a prompt, in the shapes of llama.cpp's server.

    A list of prompts, or `n`, gives a list of replies; a stream ends with the piece that has `stop`.
    """
    shared = {name: getattr(body, name) for name in SharedFields.model_fields}
    limit = next((given for given in (body.n_predict, body.max_tokens) if given is not None), -1)
    tells = body.n_probs or (0 if body.return_tokens else None)
    asked = CompletionRequest.model_construct(
        **{**shared, "max_tokens": limit, "n_predict": None, "prompt": body.prompt, "logprobs": tells},
        **(body.model_extra or {}),
    )
    parsed = await parse_completion(asked, request.state.client)
    work = _Completion(request.app.state.pool, parsed, body)
    return StreamingReply(work.stream if parsed.stream else work.whole, stream=parsed.stream, problem=parsed.problem)


def sampling_fields(sampling: SamplingOptions) -> dict[str, Any]:
    """Return sampling options under llama.cpp's names."""
    fields = asdict(replace(sampling, logit_bias=()))
    del fields["logit_bias"]
    fields["repeat_last_n"] = fields.pop("penalty_last_n")
    fields["dry_sequence_breakers"] = list(fields.pop("dry_breakers"))
    fields["seed"] = 2**32 - 1 if sampling.seed is None else sampling.seed
    return fields


class _Completion:
    """One request at work."""

    def __init__(self, pool: Pool, parsed: ParsedRequest, body: LlamaCompletionRequest) -> None:
        self._pool, self._parsed, self._body = pool, parsed, body

    async def stream(self, reply: StreamingReply) -> None:
        await self._generate(lambda piece: reply.write(event(piece)))

    async def whole(self, reply: StreamingReply) -> None:
        pieces: dict[int, list[LlamaCompletion]] = {}

        async def take(piece: LlamaCompletion) -> None:
            pieces.setdefault(piece.index, []).append(piece)

        await self._generate(take)
        wholes = [self._picked(_joined(pieces[index])) for index in sorted(pieces)]
        several = self._parsed.choices > 1 or len(self._parsed.prompts) > 1
        await reply.whole(wholes if several else wholes[0])

    async def _generate(self, take: Callable[[LlamaCompletion], Awaitable[None]]) -> None:
        async with self._pool.use(self._parsed.model, keep_alive=self._parsed.keep_alive) as model:

            async def generate(index: int, request: GenerationRequest) -> None:
                async with aclosing(self._pieces(index, request, model)) as pieces:
                    async for piece in pieces:
                        await take(piece)

            requests = await generation_requests(self._parsed, model)
            await together([generate(index, request) for index, request in enumerate(requests)])

    async def _pieces(
        self, index: int, request: GenerationRequest, model: ReadyModel
    ) -> AsyncGenerator[LlamaCompletion, None]:
        prompt = await text_of(model.chat_model.engine, self._parsed.prompts[index // self._parsed.choices])
        generated, has_new_line = 0, False
        async with aclosing(model.chat_model.engine.generate(request)) as events:
            async for engine_event in events:
                if isinstance(engine_event, TextEvent):
                    generated += engine_event.tokens
                    has_new_line = has_new_line or "\n" in engine_event.text
                    tokens = engine_event.logprobs
                    yield LlamaCompletion(
                        index=index,
                        content=engine_event.text,
                        tokens=[token.chosen.token for token in tokens],
                        stop=False,
                        tokens_predicted=generated,
                        tokens_evaluated=0,
                        completion_probabilities=_probabilities(tokens) if self._body.n_probs else msgspec.UNSET,
                    )
                else:
                    yield self._last(index, engine_event, request, model.name, prompt, has_new_line=has_new_line)

    def _last(
        self, index: int, done: Done, request: GenerationRequest, model: str, prompt: str, *, has_new_line: bool
    ) -> LlamaCompletion:
        limit = -1 if request.max_tokens is None else request.max_tokens
        settings = {**sampling_fields(request.sampling), "n_predict": limit, "max_tokens": limit}
        settings |= {"stop": list(request.stops), "n_probs": self._body.n_probs or 0, "stream": self._parsed.stream}
        return LlamaCompletion(
            index=index,
            content="",
            tokens=[],
            stop=True,
            tokens_predicted=done.completion_tokens,
            tokens_evaluated=done.prompt_tokens,
            model=model,
            generation_settings=settings,
            prompt=prompt,
            has_new_line=has_new_line,
            truncated=done.context_full,
            stop_type="limit" if done.reason == "length" else "eos" if done.stop is None else "word",
            stopping_word=done.stop or "",
            tokens_cached=done.prompt_tokens + done.completion_tokens,
            timings=timings([[done]]),
            warnings=current_warnings(),
        )

    def _picked(self, reply: LlamaCompletion) -> object:
        """Return the fields of a reply that were asked for, each under its path."""
        fields = self._body.response_fields
        if not fields:
            return reply
        picked: dict[str, object] = {}
        for field in fields:
            value: object = msgspec.to_builtins(reply)
            for step in field.split("/"):
                value = value.get(step) if isinstance(value, dict) else None
            if value is not None:
                picked[field] = value
        return picked


def _joined(pieces: Sequence[LlamaCompletion]) -> LlamaCompletion:
    last = pieces[-1]
    told = [entry for piece in pieces for entry in piece.completion_probabilities or ()]
    return msgspec.structs.replace(
        last,
        content="".join(piece.content for piece in pieces),
        tokens=[token for piece in pieces for token in piece.tokens],
        completion_probabilities=told or msgspec.UNSET,
    )


def _probabilities(tokens: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
    return [{**_token(token.chosen), "top_logprobs": [_token(other) for other in token.top]} for token in tokens]


def _token(token: Logprob) -> dict[str, Any]:
    text = token.bytes.decode("utf-8", "replace")
    return {"id": token.token, "token": text, "bytes": list(token.bytes), "logprob": finite(token.logprob)}


ROUTES = [
    ApiRoute(
        "POST",
        "/completion",
        completion,
        tag="llama.cpp",
        body=LlamaCompletionRequest,
        reply={"application/json": {"schema": {"anyOf": [{"type": "object"}, {"type": "array"}]}}},
    )
]
