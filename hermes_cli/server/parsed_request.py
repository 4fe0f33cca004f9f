"""Requests of all APIs in one form: every field honoured, or refused by its name before any work begins.

Messages and Responses are translated to a chat request and parsed as such, so all mean the same and are refused for the
same reasons; `FieldNames` names a refused field as the client called it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hermes_cli import large_json
from hermes_cli.engine.request import MAX_SEED, PARAMETERS, SamplingOptions
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.generation import Constraints, PromptOptions, TurnRequest
from hermes_cli.prompting import normalize
from hermes_cli.prompting.messages import Message
from hermes_cli.server import response_format, thinking
from hermes_cli.server.errors import ErrorShape, Problem, problem
from hermes_cli.server.openai.requests import REFUSED, UNANSWERED, ChatRequest, LenientModel, SharedFields
from hermes_cli.server.pool import SERVER_KEEP_ALIVE
from hermes_cli.server.pooled_model import ReadyModel
from hermes_cli.server.request_stats import MOST_WARNINGS, aside, warn
from hermes_cli.server.settings import seconds
from hermes_cli.server.thinking import ThinkingChoice

RawPrompt = tuple[str | int, ...]  # one text, or token ids and texts

# Fields of requests, and their names in `SamplingOptions`; of two with the same name, the later one counts.
_SAMPLING = {name: option for option, number in PARAMETERS.items() for name in number.api if option != "seed"}
_SAMPLING["ignore_eos"] = "ignore_eos"
_INSTEAD = {
    "stop_token_ids": "give stop, with texts, instead.",
    "reasoning_format": "reasoning comes in reasoning_content; include_reasoning leaves it out.",
    "audio": "these models read and write text.",
    "modalities": "these models read and write text.",
    "web_search_options": "offer a tool that searches.",
}
_OPENAI = "OpenAI's Chat Completions"
# llama.cpp's samplers in its order, each with its letter, and the options with which it does nothing.
_SAMPLERS: dict[str, tuple[str, dict[str, float]]] = {
    "penalties": ("e", {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}),
    "dry": ("d", {"dry_multiplier": 0.0}),
    "top_n_sigma": ("s", {}),
    "top_k": ("k", {"top_k": 0}),
    "typ_p": ("y", {"typical_p": 1.0}),
    "top_p": ("p", {"top_p": 1.0}),
    "min_p": ("m", {"min_p": 0.0}),
    "xtc": ("x", {}),
    "temperature": ("t", {"temperature": 1.0}),
}


@dataclass(frozen=True)
class FieldNames:
    """Names that an API has for the fields of a chat request: the longest known path is replaced, the rest stays.

    `messages[3].tool_calls[0].arguments` of the chat may be `input[5].arguments` of the request.
    """

    names: Mapping[str, str] = field(default_factory=dict)  # by path in the chat request
    api: str = _OPENAI  # for hints
    shape: ErrorShape = "openai"  # of its errors

    @contextmanager
    def renaming(self) -> Iterator[None]:
        """Rename the field of an error that is raised inside."""
        try:
            yield
        except UsageError as error:
            if not error.field or not self.names:
                raise
            hint = error.hint.replace(_OPENAI, self.api)
            raise UsageError(error.reason, field=self.of(error.field), hint=hint) from None

    def of(self, path: str) -> str:
        """Return a path as the client knows it."""
        if not self.names:
            return path
        flat = path.replace(".function.", ".")
        for end in range(len(flat), 0, -1):
            if flat[end : end + 1] in {"", ".", "["} and flat[:end] in self.names:
                return self.names[flat[:end]] + flat[end:]
        return flat


CHAT_FIELDS = FieldNames()


class ChatMessages:
    """Messages of a chat that are translated from another API's, and the paths that their parts had there."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.paths: dict[str, str] = {}

    @property
    def here(self) -> str:
        """The path of the last message in the chat request."""
        return f"messages[{len(self.messages) - 1}]"

    def append(self, message: dict[str, Any], path: str, **field_paths: str) -> None:
        """Append a message that came from a path; some of its fields may have had other paths."""
        self.messages.append(message)
        self.paths[self.here] = path
        self.paths |= {f"{self.here}.{name}": field_path for name, field_path in field_paths.items()}


def check_fields(body: LenientModel, refused: Mapping[str, tuple[object, str]], json_fields: Iterable[str]) -> None:
    """Refuse fields that are not supported, but for values that ask for nothing, and JSON that is too deep or long."""
    for name, (allowed, hint) in refused.items():
        if (body.model_extra or {}).get(name) not in (None, allowed):
            raise UsageError("is not supported.", field=name, hint=hint)
    for name in json_fields:
        normalize.check(getattr(body, name), name)


@dataclass(frozen=True)
class ParsedRequest:
    """A request of any API, settled but for what depends on the model."""

    model: str  # as the client calls it
    turn: TurnRequest  # what to generate; `max_tokens` may be more than there is room for, and sampling is not set
    sampling: Mapping[str, Any]  # the options that were given, by name
    choices: int = 1  # how many to generate
    keep_alive: float | None = SERVER_KEEP_ALIVE  # as `Pool.use` takes it
    stream: bool = False  # send events
    include_usage: bool = False  # tell the usage in the stream, too
    thinking: ThinkingChoice = field(default_factory=ThinkingChoice)  # of the request
    fields: FieldNames = field(default=CHAT_FIELDS)  # names of fields, for errors
    prompts: tuple[RawPrompt, ...] = ()  # of Completions, in place of the messages of `turn`
    prompt_logprobs: int | None = None  # alternatives to tell with each token of the prompts, as vLLM does
    suffix: str = ""  # what follows on the text that is to be filled in
    echo: bool = False  # give the prompts back, or the begun answer

    def turns(self, model: ReadyModel) -> list[TurnRequest]:
        """Return one turn for each choice; each draws with a seed of its own."""
        template = model.chat_model.choice.format
        turn, limit = self.turn, self.turn.max_tokens
        with self.fields.renaming():
            if turn.tools and not template.takes_tools:
                hint = "ask a model that takes tools."
                raise UsageError(f"cannot be given to {model.name}.", field="tools", hint=hint)
            if self.thinking.think and not template.reasons:
                reason = f"asks for reasoning, and {model.name} has no reasoning mode."
                refusal = UsageError(
                    reason, field=self.fields.of(self.thinking.field), hint="ask a model that reasons."
                )
                if model.strict_think:
                    raise refusal
                warn(refusal.message)
        think = model.think if turn.options.think is None else turn.options.think
        options = replace(turn.options, think=think if template.reasons else None)
        turn = replace(turn, options=options, think_end=model.think_end)
        # More than the context is no error: clients send it all the time.
        turn = replace(turn, max_tokens=None if limit is None else min(limit, model.info.context))
        sampling = replace(model.chat_model.recommended_sampling(), **self.sampling)
        if sampling.seed is None:
            return [replace(turn, sampling=sampling)] * self.choices
        seeds = [(sampling.seed + number) % (MAX_SEED + 1) for number in range(self.choices)]
        return [replace(turn, sampling=replace(sampling, seed=seed)) for seed in seeds]

    def problem(self, error: HermesError) -> Problem:
        """Translate an error for the client."""
        prompt_field = self.fields.of("messages")
        return problem(error, self.fields.shape, prompt_field=prompt_field, max_tokens=self.turn.max_tokens)


async def parse_chat(body: ChatRequest, client: str, fields: FieldNames = CHAT_FIELDS) -> ParsedRequest:
    """Parse a chat request, or another API's as one; `fields` are the names that its fields had there.

    Raise UsageError if a field makes no sense, or cannot be honoured.
    """
    with fields.renaming():
        notes: normalize.Notes = []
        messages, tools, strict = await aside(client, lambda: _normalized(body, notes))
        warn(*(f"{fields.of(place)} {note}" for place, note in notes[:MOST_WARNINGS]))
        messages, continues = _with_begun_answer(body, messages)
        top_logprobs = body.top_logprobs or 0
        if top_logprobs and not body.logprobs:
            raise UsageError(
                "is given without logprobs.", field="top_logprobs", hint="set logprobs to true, or leave it out."
            )
        parsed = await aside(client, lambda: parse_shared(body, client, top_logprobs if body.logprobs else None))
        think = thinking.parse(body)
        answer = await response_format.parse(body, client)
        parallel = body.parallel_tool_calls is not False
        calls = await response_format.parse_calls(
            tools, body.tool_choice, parallel=parallel, strict=strict, client=client
        )
    turn = replace(
        parsed.turn,
        messages=messages,
        tools=tools,
        options=PromptOptions(think.think, think.keep, answer.schema if answer else False),
        constraints=Constraints(answer.grammar if answer else None, calls),
        think_budget=think.budget,
        continues=continues,
    )
    return replace(parsed, turn=turn, thinking=think, fields=fields, echo=continues and bool(body.echo))


def _normalized(
    body: ChatRequest, notes: normalize.Notes
) -> tuple[list[Message], list[dict[str, Any]], frozenset[str]]:
    """Return the messages, the tools, and the names of the strict ones."""
    messages = normalize.messages(_with_readable_calls(body.messages), notes)
    return messages, normalize.tools(body.tools, notes), normalize.strict_tools(body.tools)


def _with_begun_answer(body: ChatRequest, messages: list[Message]) -> tuple[list[Message], bool]:
    """Return the messages, and whether the model goes on with the last one.

    It does as in llama.cpp's server and Ollama, unless the fields that vLLM has for it say otherwise.
    """
    last, wanted, other = messages[-1], body.continue_final_message, body.add_generation_prompt
    is_answer = last.role == "assistant" and not last.tool_calls
    can = is_answer and bool(last.content or last.reasoning)
    hint = "end with a message of the assistant that has text, or leave it out."
    if wanted and other:
        raise UsageError("cannot go together with add_generation_prompt.", field="continue_final_message", hint=hint)
    if wanted and not can:
        raise UsageError("has no answer to continue.", field="continue_final_message", hint=hint)
    if other is False and (not can or wanted is False):
        raise UsageError("is not supported without an answer to continue.", field="add_generation_prompt", hint=hint)
    if is_answer and not can and len(messages) > 1:  # nothing is begun
        return messages[:-1], False
    return messages, can and wanted is not False and not other


def parse_shared(body: SharedFields, client: str, top_logprobs: int | None, default_limit: int = -1) -> ParsedRequest:
    """Parse what chats and completions have in common; a limit of -1 tokens is as many as there is room for."""
    for name, value in (body.model_extra or {}).items():
        if value is not None and name in REFUSED and value not in REFUSED[name]:
            hint = _INSTEAD.get(name, "leave it out: nothing here would do what it says.")
            raise UsageError("is not supported.", field=name, hint=hint)
    streamed = body.stream_options.model_extra if body.stream_options else None
    extra = {
        **(body.model_extra or {}),
        **{f"stream_options.{name}": value for name, value in (streamed or {}).items()},
    }
    warn(*(f"{name} is ignored: the reply is as always." for name in sorted(UNANSWERED & extra.keys()) if extra[name]))
    if (body.min_tokens or 0) > 0 and not body.ignore_eos:
        hint = "set ignore_eos, and max_tokens."
        raise UsageError("is not supported without ignore_eos.", field="min_tokens", hint=hint)
    limits = (body.max_completion_tokens if isinstance(body, ChatRequest) else None, body.max_tokens, body.n_predict)
    limit = next((given for given in limits if given is not None), default_limit)
    turn = TurnRequest(
        (),
        max_tokens=None if limit < 0 else limit,
        stops=tuple(dict.fromkeys(map(normalize.repaired, body.stop or ()))),
        top_logprobs=top_logprobs,
        client=client,
        calls_without_tools=False,
    )
    return ParsedRequest(
        body.model or "",
        turn,
        _sampling(body),
        body.n or 1,
        parse_keep_alive(body.keep_alive),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
    )


def parse_keep_alive(value: float | str | None) -> float | None:
    """Return how long a model is to stay in memory, as `Pool.use` takes it."""
    try:
        return SERVER_KEEP_ALIVE if value is None else seconds(value)
    except UsageError as error:
        raise UsageError("is no duration.", field="keep_alive", hint=error.hint) from None


def _with_readable_calls(messages: Sequence[Any]) -> list[Any]:
    """Return messages in which every call has arguments that can be read.

    Models write bad JSON, and clients send it back. Such arguments are given to the model as they stood: if they were
    refused, an agent would repeat the same request for ever (hermes-agent issue 12068).
    """
    return [
        {**message, "tool_calls": [_readable_call(call) for call in message["tool_calls"]]}
        if isinstance(message, dict) and isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _readable_call(call: Any) -> Any:  # noqa: ANN401 - as it was sent
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or arguments is None or isinstance(arguments, dict):
        return call
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    if not text.strip():
        return call
    try:
        value = large_json.read_text(text, strict=False)
        normalize.check(value, "arguments")
    except (ValueError, RecursionError, UsageError):
        value = None
    if isinstance(value, dict):
        return call
    readable = {} if value == [] else {"arguments": text}  # PHP writes an empty object as a list
    return {**call, "function": {**function, "arguments": readable}}


def _without_samplers(wanted: object) -> dict[str, float]:
    """Return the options with which all samplers do nothing but those that are wanted, by names or letters."""
    if wanted in (None, "", []):
        return {}
    if isinstance(wanted, str | list) and len(wanted) > len(_SAMPLERS):  # millions of letters are not looked through
        wanted = None
    names = {letter: name for name, (letter, _) in _SAMPLERS.items()}
    listed = [names.get(letter, letter) for letter in wanted] if isinstance(wanted, str) else wanted
    known = ["typ_p" if name == "typical_p" else name for name in listed] if isinstance(listed, list) else []
    if not known or known != [name for name in _SAMPLERS if name in known]:
        hint = f"name some of these in their order: {', '.join(_SAMPLERS)}."
        raise UsageError("is not supported.", field="samplers", hint=hint)
    return {key: value for name, (_, off) in _SAMPLERS.items() if name not in known for key, value in off.items()}


def _sampling(body: SharedFields) -> dict[str, Any]:
    options = {option: value for name, option in _SAMPLING.items() if (value := getattr(body, name)) is not None}
    options |= _without_samplers(body.samplers)
    if body.dry_sequence_breakers is not None:
        options["dry_breakers"] = tuple(map(normalize.repaired, body.dry_sequence_breakers))
    for token in body.logit_bias or ():
        if not re.fullmatch("[0-9]{1,9}", token):  # more than any vocabulary has
            hint = "POST /tokenize tells ids."
            raise UsageError(f"has {token[:40]!r}, which is not a token id.", field="logit_bias", hint=hint)
    if body.logit_bias:
        options["logit_bias"] = tuple((int(token), bias) for token, bias in body.logit_bias.items())
    if body.seed is not None and body.seed >= 0:
        options["seed"] = body.seed % (MAX_SEED + 1)
    try:
        SamplingOptions(**options)
    except UsageError as error:
        names = [
            name for name, option in _SAMPLING.items() if option == error.field and getattr(body, name) is not None
        ]
        raise UsageError(error.reason, field=names[-1] if names else error.field, hint=error.hint) from None
    return options
