"""Requests as turns of a model: every field honoured, or refused by its name before anything works.

What depends on the model alone, its recommended sampling and what it can do, is settled when it is there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hermes_cli.engine.request import MAX_SEED, SamplingOptions
from hermes_cli.errors import UsageError
from hermes_cli.generation import PromptOptions, TurnRequest
from hermes_cli.prompting import normalize
from hermes_cli.server.openai import constraints, thinking
from hermes_cli.server.openai.schemas import REFUSED
from hermes_cli.server.pool import AS_TOLD
from hermes_cli.server.settings import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_cli.server.openai.schemas import Asked, ChatRequest
    from hermes_cli.server.openai.thinking import Thinking
    from hermes_cli.server.pool import Served

# Fields of requests, and what they are called in `SamplingOptions`; the later one counts.
_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_last_n": "penalty_last_n",
    "dry_multiplier": "dry_multiplier",
    "dry_base": "dry_base",
    "dry_allowed_length": "dry_allowed_length",
    "dry_penalty_last_n": "dry_penalty_last_n",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "ignore_eos": "ignore_eos",
}


@dataclass(frozen=True)
class ParsedRequest:
    """What a request asks of any model.

    Attributes:
        model: as the client calls it.
        sampling: what is said of it.
        choices: how many.
        max_tokens: of each; None is as many as there is room for.
        stops: texts that end the answer.
        top_logprobs: as in `TurnRequest`.
        keep_alive: as `Pool.use` takes it.
        stream: piece by piece.
        usage: tell it in the stream, too.
    """

    model: str
    sampling: Mapping[str, Any]
    choices: int
    max_tokens: int | None
    stops: tuple[str, ...]
    top_logprobs: int | None
    keep_alive: float | None
    stream: bool
    usage: bool

    def requested(self, served: Served) -> int:
        """The most tokens that the client wants, for the error that it has too little room."""
        return 1 if self.max_tokens is None else min(self.max_tokens, served.context)

    def limit(self, served: Served) -> int | None:
        """The most tokens to generate; what goes beyond the context is no error, clients send it all the time."""
        return None if self.max_tokens is None else min(self.max_tokens, served.context)

    def samplings(self, served: Served) -> list[SamplingOptions]:
        """One for each choice: as the model recommends where nothing is said; each draws with a seed of its own."""
        one = replace(served.chatter.recommended_sampling(), **self.sampling)
        if one.seed is None:
            return [one] * self.choices
        return [replace(one, seed=(one.seed + number) % (MAX_SEED + 1)) for number in range(self.choices)]


@dataclass(frozen=True)
class ChatOrder:
    """A chat."""

    order: ParsedRequest
    turn: TurnRequest
    thinking: Thinking

    def turns(self, served: Served) -> list[TurnRequest]:
        """One for each choice.

        Raises:
            UsageError: this model cannot do what is asked.
        """
        form = served.chatter.choice.format
        if self.turn.tools and not form.takes_tools:
            raise UsageError(f"cannot be given to {served.name}.", field="tools", hint="ask a model that takes tools.")
        thinking.check(self.thinking, form, served.name)
        wishes = self.turn.wishes
        if wishes.think is None:
            wishes = replace(wishes, think=served.think)
        turn = replace(self.turn, wishes=wishes, max_tokens=self.order.limit(served))
        return [replace(turn, sampling=sampling) for sampling in self.order.samplings(served)]


async def chat_order(body: ChatRequest, client: str) -> ChatOrder:
    """What a chat request asks for.

    Args:
        body: the request.
        client: who asks.

    Raises:
        UsageError: a field makes no sense, or cannot be honoured.
    """
    messages = normalize.messages(readable(body.messages))
    tools = normalize.tools(body.tools)
    top_logprobs = body.top_logprobs or 0
    if top_logprobs and not body.logprobs:
        raise UsageError(
            "is given without logprobs.", field="top_logprobs", hint="set logprobs to true, or leave it out."
        )
    asked = order(body, top_logprobs if body.logprobs else None)
    wish = thinking.wished(body)
    answer = await constraints.held(body)
    parallel = body.parallel_tool_calls is not False
    calls = await constraints.calls(tools, body.tool_choice, parallel=parallel)
    turn = TurnRequest(
        messages,
        tools,
        PromptOptions(wish.think, wish.keep, answer.schema if answer else False),
        constraints.bounds(answer, calls),
        think_budget=wish.budget,
        stops=asked.stops,
        top_logprobs=asked.top_logprobs,
        client=client,
    )
    return ChatOrder(asked, turn, wish)


def order(body: Asked, top_logprobs: int | None, usual_limit: int = -1) -> ParsedRequest:
    """What all requests have in common.

    Args:
        body: the request.
        top_logprobs: as in `TurnRequest`.
        usual_limit: of tokens where none is given; -1 is as many as there is room for.

    Raises:
        UsageError: a field makes no sense, or cannot be honoured.
    """
    _refuse(body)
    limits = (getattr(body, "max_completion_tokens", None), body.max_tokens, body.n_predict)
    limit = next((given for given in limits if given is not None), usual_limit)
    options = body.stream_options
    return ParsedRequest(
        body.model or "",
        _sampling(body),
        body.n or 1,
        None if limit < 0 else limit,
        tuple(dict.fromkeys(map(normalize.repaired, body.stop or ()))),
        top_logprobs,
        _keep_alive(body),
        bool(body.stream),
        bool(options and options.include_usage),
    )


def readable(messages: list[Any]) -> list[Any]:
    """Messages in which every call has arguments that can be read.

    Models write bad JSON, and clients send it back. What cannot be read is given to the model as it stood: refused, it
    would make an agent repeat the same request for ever (hermes-agent issue 12068).
    """
    return [
        {**message, "tool_calls": [_readable_call(call) for call in message["tool_calls"]]}
        if isinstance(message, dict) and isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _readable_call(call: Any) -> Any:  # noqa: ANN401 - as it was sent
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    given = function.get("arguments")
    if not isinstance(given, str) or not given.strip() or _is_object(given):
        return call
    return {**call, "function": {**function, "arguments": {"arguments": given}}}


def _is_object(text: str) -> bool:
    try:
        value = json.loads(text, strict=False)
        normalize.check(value, "arguments")
    except (ValueError, RecursionError, UsageError):
        return False
    return isinstance(value, dict)


def _refuse(body: Asked) -> None:
    """What would change the result, and is not to be had."""
    for name, value in (body.model_extra or {}).items():
        if value is not None and name in REFUSED and value not in REFUSED[name]:
            hint = _INSTEAD.get(name, "leave it out: nothing here would do what it says.")
            raise UsageError("is not supported.", field=name, hint=hint)
    if (body.min_tokens or 0) > 0 and not body.ignore_eos:
        raise UsageError(
            "is not supported without ignore_eos.", field="min_tokens", hint="set ignore_eos, and max_tokens."
        )


_INSTEAD = {
    "functions": "offer tools instead.",
    "function_call": "say tool_choice instead.",
    "stop_token_ids": "give stop, with texts, instead.",
    "reasoning_format": "reasoning comes in reasoning_content; include_reasoning leaves it out.",
    "audio": "these models read and write text.",
    "modalities": "these models read and write text.",
    "web_search_options": "offer a tool that searches.",
}


def _sampling(body: Asked) -> dict[str, Any]:
    """What is said of sampling.

    Raises:
        UsageError: a value is out of its range.
    """
    said = {ours: value for name, ours in _SAMPLING.items() if (value := getattr(body, name)) is not None}
    if body.dry_sequence_breakers is not None:
        said["dry_breakers"] = tuple(map(normalize.repaired, body.dry_sequence_breakers))
    if body.logit_bias:
        said["logit_bias"] = tuple((_token(token), bias) for token, bias in body.logit_bias.items())
    if body.seed is not None and body.seed >= 0:
        said["seed"] = body.seed % (MAX_SEED + 1)
    try:
        SamplingOptions(**said)
    except UsageError as error:
        names = [name for name, ours in _SAMPLING.items() if ours == error.field and getattr(body, name) is not None]
        raise UsageError(error.reason, field=names[-1] if names else error.field, hint=error.hint) from None
    return said


def _token(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):  # noqa: PLR2004 - more than any vocabulary has
        raise UsageError(
            f"has {text[:40]!r}, which is no token id.", field="logit_bias", hint="POST /tokenize tells ids."
        )
    return int(text)


def _keep_alive(body: Asked) -> float | None:
    if body.keep_alive is None:
        return AS_TOLD
    try:
        return seconds(body.keep_alive)
    except UsageError as error:
        raise UsageError("is no duration.", field="keep_alive", hint=error.hint) from None
