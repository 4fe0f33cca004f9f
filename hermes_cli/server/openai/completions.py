"""POST /v1/completions: a prompt that is continued as it stands. No chat template, no reasoning, no tools."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from typing import Any

from msgspec import UNSET, UnsetType, structs
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.engine.protocol import Done, Engine, TextEvent, TokenLogprobs
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.errors import UsageError
from hermes_cli.generation import Constraints
from hermes_cli.prompting import normalize
from hermes_cli.prompting.turn_grammar import SpecialTokens, turn_grammar
from hermes_cli.server import response_format
from hermes_cli.server.choice_stream import TokenAttribution
from hermes_cli.server.openai.objects import (
    Completion,
    CompletionChoice,
    PromptLogprob,
    TextFinishReason,
    completion_logprobs,
    join_logprobs,
    prompt_logprobs,
    timings,
    usage,
)
from hermes_cli.server.openai.requests import MOST_PROMPTS, MOST_TEXTS, CompletionRequest
from hermes_cli.server.parsed_request import FieldNames, ParsedRequest, RawPrompt, parse_shared
from hermes_cli.server.pool import Pool
from hermes_cli.server.pooled_model import ReadyModel
from hermes_cli.server.request_stats import aside, current_warnings
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import DONE, StreamingReply, event, together

Take = Callable[["_TextChoice", str, Done | None], Awaitable[None]]

DEFAULT_TOKENS = 16  # as OpenAI documents `max_tokens` of this API


async def completions(request: Request, body: CompletionRequest) -> Response:
    """Continue a prompt.

    OpenAI's Completions; unknown fields are ignored.
    """
    parsed = await parse_completion(body, request.state.client)
    text = _Completion(request.app.state.pool, parsed)
    return StreamingReply(text.stream if parsed.stream else text.whole, stream=parsed.stream, problem=parsed.problem)


async def parse_completion(body: CompletionRequest, client: str) -> ParsedRequest:
    """Parse a request."""
    parsed = await aside(client, lambda: parse_shared(body, client, body.logprobs, DEFAULT_TOKENS))
    if body.best_of not in {None, parsed.choices}:
        raise UsageError("is not supported.", field="best_of", hint="ask for n choices, and take the best.")
    prompts = await aside(client, lambda: tuple(_prompts(body.prompt)))
    texts = len(prompts) * parsed.choices
    if texts > MOST_TEXTS:
        hint = f"ask for up to {MOST_TEXTS} at once."
        raise UsageError(f"makes {texts} texts of {len(prompts)} prompts.", field="n", hint=hint)
    answer = await response_format.parse(body, client)
    turn = replace(parsed.turn, constraints=Constraints(answer.grammar if answer else None))
    fields = FieldNames({"messages": "prompt"})
    suffix = normalize.repaired(body.suffix or "")
    parsed = replace(parsed, turn=turn, fields=fields, prompts=prompts, suffix=suffix, echo=bool(body.echo))
    return replace(parsed, prompt_logprobs=body.prompt_logprobs)


def _prompts(sent: Any) -> Iterator[RawPrompt]:  # noqa: ANN401 - as it was sent
    several = isinstance(sent, list) and all(isinstance(prompt, str | list | dict) for prompt in sent)
    prompts = sent if several else [sent]
    if not prompts or len(prompts) > MOST_PROMPTS:
        raise UsageError(f"has {len(prompts)} prompts.", field="prompt", hint=f"send 1 to {MOST_PROMPTS}.")
    for index, prompt in enumerate(prompts):
        field = f"prompt[{index}]" if several else "prompt"
        if prompt == []:
            raise UsageError("is empty.", field=field, hint="send at least one token, or a text.")
        pieces: list[Any] = prompt if isinstance(prompt, list) else [_text(prompt, field)]
        if not all(isinstance(piece, str) or type(piece) is int for piece in pieces):
            hint = "send a text, a list of texts, or of token ids and texts."
            raise UsageError("is neither text nor a list of token ids.", field=field, hint=hint)
        normalize.check(pieces, field)
        yield tuple(normalize.repaired(piece) if isinstance(piece, str) else piece for piece in pieces)


def _text(prompt: object, field: str) -> object:
    """Return the text of a prompt that is an object, as llama.cpp's server takes it."""
    if not isinstance(prompt, dict) or "prompt_string" not in prompt:
        return prompt
    if prompt.get("multimodal_data"):
        raise UsageError("has images or sound, which is not supported.", field=field, hint="send text.")
    return prompt["prompt_string"]


async def generation_requests(parsed: ParsedRequest, model: ReadyModel) -> list[GenerationRequest]:
    """Return a request for each choice of each prompt; all choices of the first prompt come first."""
    if parsed.suffix:
        prompts = [await _fill_in(model, prompt, parsed.suffix) for prompt in parsed.prompts]
        parsed = replace(parsed, prompts=tuple(prompts))
    begin = model.info.bos or model.info.eos  # what a text begins with, where nothing stands before it
    engine = model.chat_model.engine
    prompts = [(begin,) if prompt == ("",) else await _joined(engine, prompt) for prompt in parsed.prompts]
    parsed = replace(parsed, prompts=tuple(prompts))
    vocabulary = model.info.vocabulary
    for token in (token for prompt in parsed.prompts for token in prompt):
        if isinstance(token, int) and not 0 <= token < vocabulary:
            hint = f"{model.name} has 0 to {vocabulary - 1}."
            raise UsageError(f"has token {token}.", field="prompt", hint=hint)
    special = SpecialTokens(model.info.tags, model.info.others)
    answer = parsed.turn.constraints.answer
    grammar = turn_grammar(answer, None, tokens=special) if answer else None
    turns = parsed.turns(model)
    echoed = parsed.turn.top_logprobs if parsed.echo and not parsed.suffix else None
    told = [count for count in (echoed, parsed.prompt_logprobs) if count is not None]
    return [
        GenerationRequest(
            prompt,
            turn.sampling or SamplingOptions(),
            turn.max_tokens,
            turn.stops,
            grammar,
            top_logprobs=turn.top_logprobs,
            client=turn.client,
            prompt_logprobs=max(told) if told else None,
        )
        for prompt in parsed.prompts
        for turn in turns
    ]


async def _fill_in(model: ReadyModel, prompt: RawPrompt, suffix: str) -> RawPrompt:
    """Return the prompt for the text between a prompt and a suffix, as llama.cpp's server has it.

    Raise UsageError if the model's vocabulary has no tokens for that.
    """
    if not model.info.fim:
        raise UsageError(
            f"cannot be honoured: the vocabulary of {model.name} has no tokens for filling in the middle.",
            field="suffix",
            hint="leave it out, or ask a model for code that has them.",
        )
    engine, (before, behind, middle) = model.chat_model.engine, model.info.fim
    return (before, *await _joined(engine, (*prompt, "")), behind, *await engine.tokenize(suffix), middle)


class _TextChoice:
    """A choice as it is generated."""

    def __init__(self, index: int, echo: str, parsed: ParsedRequest) -> None:
        self._index, self._echo, self._parsed = index, echo, parsed
        self.tokens = TokenAttribution()
        self.prompt: list[TokenLogprobs] = []  # if their log-probabilities are wanted
        self._length = 0  # characters so far

    def take(self, text: str, done: Done | None) -> CompletionChoice | None:
        """Return a piece, with the end if it is there; None if it is empty."""
        echo, self._echo = self._echo, ""
        if not echo + text and done is None:
            return None
        logprobs, top = None, self._parsed.turn.top_logprobs
        if top is not None:
            tokens = self.tokens.take(text)
            if done and done.stop is None and self._parsed.echo:
                tokens += self.tokens.rest()  # the one that ended it: who scores prompts expects one behind them
            logprobs = completion_logprobs(tokens, self._length + len(echo), top=top)
            if echo and self.prompt:
                logprobs = join_logprobs(completion_logprobs(self.prompt, 0, top=top, is_prompt=True), logprobs)
        told: list[dict[str, PromptLogprob] | None] | UnsetType = UNSET
        if self._parsed.prompt_logprobs is not None and self._length == 0:
            told = prompt_logprobs(self.prompt, top=self._parsed.prompt_logprobs)
        self._length += len(echo + text)
        reason: TextFinishReason | None = None if done is None else "length" if done.reason == "length" else "stop"
        return CompletionChoice(self._index, echo + text, logprobs, reason, told)


class _Completion:
    """One request at work."""

    def __init__(self, pool: Pool, parsed: ParsedRequest) -> None:
        self._pool, self._parsed = pool, parsed
        self._reply = Completion(
            id=f"cmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
            model="",  # known when the pool has lent it
            choices=[],
        )

    async def stream(self, reply: StreamingReply) -> None:
        async def take(choice: _TextChoice, text: str, done: Done | None) -> None:
            if piece := choice.take(text, done):
                chunk = structs.replace(self._reply, choices=[piece])
                if done and not self._parsed.include_usage:
                    chunk = structs.replace(chunk, timings=timings([[done]]), warnings=current_warnings())
                await reply.write(event(chunk))

        prompts = await self._generate(take)
        if self._parsed.include_usage:
            chunk = structs.replace(self._reply, usage=usage(prompts), timings=timings(prompts))
            await reply.write(event(structs.replace(chunk, warnings=current_warnings())))
        await reply.write(DONE)

    async def whole(self, reply: StreamingReply) -> None:
        texts: dict[_TextChoice, list[str]] = defaultdict(list)
        choices: list[CompletionChoice] = []

        async def take(choice: _TextChoice, text: str, done: Done | None) -> None:
            texts[choice].append(text)
            if done and (whole := choice.take("".join(texts[choice]), done)):
                choices.append(whole)

        prompts = await self._generate(take)
        choices.sort(key=lambda choice: choice.index)
        completion = structs.replace(self._reply, choices=choices, usage=usage(prompts), timings=timings(prompts))
        await reply.whole(structs.replace(completion, warnings=current_warnings()))

    async def _generate(self, take: Take) -> list[list[Done]]:
        """Generate all choices of all prompts at once; return how they ended, by prompt."""
        parsed, count = self._parsed, self._parsed.choices
        dones: dict[int, Done] = {}
        async with self._pool.use(parsed.model, keep_alive=parsed.keep_alive) as model:
            self._reply = structs.replace(self._reply, model=model.name)
            engine = model.chat_model.engine

            async def generate(index: int, echo: str, request: GenerationRequest) -> None:
                choice = _TextChoice(index, echo, parsed)
                async with aclosing(engine.generate(request)) as events:
                    async for engine_event in events:
                        if isinstance(engine_event, TextEvent):
                            if read := engine_event.prompt:
                                choice.prompt += read if choice.prompt else _sent(model, request.prompt, read)
                            choice.tokens.add(engine_event.logprobs)
                            if engine_event.text or not engine_event.prompt:
                                await take(choice, engine_event.text, None)
                        else:
                            dones[index] = engine_event
                            await take(choice, "", engine_event)

            requests = await generation_requests(parsed, model)
            echoes = [await text_of(engine, prompt) if parsed.echo else "" for prompt in parsed.prompts]
            await together([generate(at, echoes[at // count], request) for at, request in enumerate(requests)])
        ordered = [dones[index] for index in sorted(dones)]
        return [ordered[at : at + count] for at in range(0, len(ordered), count)]


def _sent(model: ReadyModel, prompt: tuple[str | int, ...], read: Sequence[TokenLogprobs]) -> Sequence[TokenLogprobs]:
    """Return the first tokens of a prompt that the engine read, without a BOS that the client has not sent."""
    first = prompt[0]
    spelled = first.startswith(model.info.bos) if isinstance(first, str) else first == read[0].chosen.token
    return read[1:] if model.info.adds_bos and not spelled else read


async def _joined(engine: Engine, prompt: RawPrompt) -> RawPrompt:
    """Return a prompt of texts and tokens as tokens; any other one as it is."""
    if len(prompt) == 1 or not any(isinstance(piece, str) for piece in prompt):
        return prompt
    lists = [await engine.tokenize(piece) if isinstance(piece, str) else [piece] for piece in prompt]
    return tuple(chain.from_iterable(lists))


async def text_of(engine: Engine, prompt: RawPrompt) -> str:
    """Return a prompt as a text."""
    if isinstance(prompt[0], str) and len(prompt) == 1:
        return prompt[0]
    tokens = [piece for piece in await _joined(engine, prompt) if isinstance(piece, int)]
    return (await engine.detokenize(tokens)).decode("utf-8", "replace")


ROUTES = [
    ApiRoute(
        "POST",
        "/v1/completions",
        completions,
        tag="OpenAI",
        body=CompletionRequest,
        reply=Completion,
        stream=Completion,
    )
]
