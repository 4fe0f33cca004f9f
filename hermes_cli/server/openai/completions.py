"""POST /v1/completions: a prompt that is continued as it stands. No chat template, no reasoning, no tools."""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from hermes_cli.engine.protocol import Done, TextEvent
from hermes_cli.engine.request import GenerationRequest as Job
from hermes_cli.errors import ContextFullError, UsageError
from hermes_cli.prompting import normalize
from hermes_cli.prompting.turn_grammar import SpecialTokens, turn_grammar
from hermes_cli.server.answering import Answering, together
from hermes_cli.server.errors import too_long
from hermes_cli.server.openai import constraints
from hermes_cli.server.openai.logprobs import Attribution, for_completion
from hermes_cli.server.openai.replies import Completion, CompletionChoice, answers
from hermes_cli.server.openai.schemas import MOST_PROMPTS, MOST_TEXTS, CompletionRequest
from hermes_cli.server.openai.sse import DONE, error_event, event, one_line
from hermes_cli.server.openai.translate import order
from hermes_cli.server.openai.usage import timings, usage
from hermes_cli.server.security import GuardedRoute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from msgspec import UnsetType

    from hermes_cli.engine.protocol import TokenLogprobs
    from hermes_cli.server.answering import Outlet
    from hermes_cli.server.openai.constraints import Held
    from hermes_cli.server.openai.replies import Written
    from hermes_cli.server.openai.translate import ParsedRequest
    from hermes_cli.server.openai.usage import Timings, Usage
    from hermes_cli.server.pool import Pool, Served

    Prompt = tuple[str] | tuple[int, ...]
    Take = Callable[["_Text", str, Done | None], Awaitable[None]]

USUAL_TOKENS = 16  # as OpenAI documents `max_tokens` of this API
_KINDS = "send a text, a list of texts, or of token ids."


router = APIRouter(route_class=GuardedRoute, tags=["OpenAI"])


@router.post(
    "/v1/completions",
    response_class=Response,
    responses=answers(Completion, Completion),
    summary="Continue a prompt",
)
async def completions(request: Request, body: CompletionRequest) -> Response:
    """OpenAI's Completions; fields that nobody here knows are ignored."""
    work = _Work(request.app.state.pool, await _asked(body, request.state.client))
    stream = work.order.stream
    return Answering(work.stream if stream else work.whole, stream=stream, error_event=error_event)


@dataclass(frozen=True)
class _Asked:
    """What a request asks for; `echo` gives the prompts back."""

    order: ParsedRequest
    prompts: tuple[Prompt, ...]
    answer: Held | None
    echo: bool
    client: str

    def jobs(self, served: Served) -> list[Job]:
        """For the engine: all choices of the first prompt come first.

        Raises:
            UsageError: a prompt has a token that the model does not.
        """
        known = served.loaded.vocabulary
        for token in (token for prompt in self.prompts for token in prompt):
            if isinstance(token, int) and not 0 <= token < known:
                raise UsageError(f"has token {token}.", field="prompt", hint=f"{served.name} has 0 to {known - 1}.")
        special = SpecialTokens(served.loaded.tags, served.loaded.others)
        grammar = turn_grammar(self.answer.answer, None, tokens=special) if self.answer else None
        return [
            Job(
                prompt,
                sampling,
                self.order.limit(served),
                self.order.stops,
                grammar,
                top_logprobs=self.order.top_logprobs,
                client=self.client,
            )
            for prompt in self.prompts
            for sampling in self.order.samplings(served)
        ]


async def _asked(body: CompletionRequest, client: str) -> _Asked:
    asked = order(body, body.logprobs, USUAL_TOKENS)
    if body.best_of not in {None, asked.choices}:
        raise UsageError("is not supported.", field="best_of", hint="ask for n choices, and take the best.")
    if body.echo and body.logprobs is not None:
        raise UsageError("is not supported with logprobs.", field="echo", hint="leave one of them out.")
    prompts = tuple(_prompts(body.prompt))
    if len(prompts) * asked.choices > MOST_TEXTS:
        wanted = f"makes {len(prompts) * asked.choices} texts of {len(prompts)} prompts"
        raise UsageError(f"{wanted}.", field="n", hint=f"ask for up to {MOST_TEXTS} at once.")
    return _Asked(asked, prompts, await constraints.held(body), bool(body.echo), client)


def _prompts(given: Any) -> list[Prompt]:  # noqa: ANN401 - as it was sent
    """Every prompt as the engine takes it."""
    several = isinstance(given, list) and all(isinstance(one, str | list) for one in given)
    listed = given if several else [given]
    if not listed or len(listed) > MOST_PROMPTS:
        raise UsageError(f"has {len(listed)} prompts.", field="prompt", hint=f"send 1 to {MOST_PROMPTS}.")
    return [_prompt(one, f"prompt[{at}]" if several else "prompt") for at, one in enumerate(listed)]


def _prompt(given: Any, where: str) -> Prompt:  # noqa: ANN401 - as it was sent
    if given in ("", []):
        raise UsageError("is empty.", field=where, hint="send at least one letter or token.")
    if isinstance(given, str):
        normalize.check(given, where)
        return (normalize.repaired(given),)
    if not isinstance(given, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in given):
        raise UsageError("is neither text nor a list of token ids.", field=where, hint=_KINDS)
    return tuple(given)


class _Text:
    """One choice, as it is written."""

    def __init__(self, index: int, echoed: str, top_logprobs: int | None) -> None:
        self._index, self._echoed, self._top_logprobs = index, echoed, top_logprobs
        self._attribution = Attribution()
        self._length = 0  # of what was told

    def add(self, tokens: Sequence[TokenLogprobs]) -> None:
        """The tokens of what is told next."""
        self._attribution.add(tokens)

    def told(self, text: str, done: Done | None) -> CompletionChoice | None:
        """Some of it, and the end if it is there; None if that is nothing."""
        whole, self._echoed = self._echoed + text, ""
        if not whole and done is None:
            return None
        logprobs = None
        if self._top_logprobs is not None:
            tokens = self._attribution.take(text)
            logprobs = for_completion(tokens, self._length, top=self._top_logprobs)
        self._length += len(whole)
        reason: Written | None = None if done is None else "length" if done.reason == "length" else "stop"
        return CompletionChoice(self._index, whole, logprobs, reason)


class _Work:
    """One request at work."""

    def __init__(self, pool: Pool, asked: _Asked) -> None:
        self._pool, self._asked, self.order = pool, asked, asked.order
        self._name = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._model = ""

    async def stream(self, outlet: Outlet) -> None:
        """Send every text as it comes."""
        until_then = None if self.order.usage else msgspec.UNSET

        async def take(choice: _Text, text: str, done: Done | None) -> None:
            if told := choice.told(text, done):
                times = timings([[done]]) if done and not self.order.usage else msgspec.UNSET
                await outlet.write(event(self._encoded([told], until_then, times)))

        prompts = await self._answer(take)
        if self.order.usage:
            await outlet.write(event(self._encoded([], usage(prompts), timings(prompts))))
        await outlet.write(DONE)

    async def whole(self, outlet: Outlet) -> None:
        """Send all of it at the end."""
        texts: dict[_Text, list[str]] = {}
        choices: list[CompletionChoice] = []

        async def take(choice: _Text, text: str, done: Done | None) -> None:
            texts.setdefault(choice, []).append(text)
            if done and (told := choice.told("".join(texts[choice]), done)):
                choices.append(told)

        prompts = await self._answer(take)
        choices.sort(key=lambda choice: choice.index)
        await outlet.whole(self._encoded(choices, usage(prompts), timings(prompts)))

    async def _answer(self, take: Take) -> list[list[Done]]:
        """All choices of all prompts at once; how they ended, by prompt."""
        dones: dict[int, Done] = {}
        asked, top = self._asked, self.order.top_logprobs
        async with self._pool.use(self.order.model, keep_alive=self.order.keep_alive) as served:
            self._model = served.name
            echoed = [await _text(served, prompt) if asked.echo else "" for prompt in asked.prompts]

            async def one(index: int, job: Job) -> None:
                choice = _Text(index, echoed[index // self.order.choices], top)
                async with aclosing(served.chatter.engine.generate(job)) as events:  # type: ignore[type-var]  # it can be closed
                    async for happened in events:
                        if isinstance(happened, TextEvent):
                            choice.add(happened.logprobs)
                            await take(choice, happened.text, None)
                        else:
                            dones[index] = happened
                            await take(choice, "", happened)

            try:
                await together([one(index, job) for index, job in enumerate(asked.jobs(served))])
            except ContextFullError as error:
                raise too_long(error, self.order.requested(served), "prompt") from None
        every = [dones[index] for index in sorted(dones)]
        return [every[at : at + self.order.choices] for at in range(0, len(every), self.order.choices)]

    def _encoded(
        self,
        choices: list[CompletionChoice],
        used: Usage | UnsetType | None,
        times: Timings | UnsetType,
    ) -> bytes:
        answer = Completion(
            id=self._name, created=self._created, model=self._model, choices=choices, usage=used, timings=times
        )
        return one_line(msgspec.json.encode(answer))


async def _text(served: Served, prompt: Prompt) -> str:
    """A prompt as it is given back."""
    if isinstance(prompt[0], str):
        return prompt[0]
    return (await served.chatter.engine.detokenize([*prompt])).decode("utf-8", "replace")
