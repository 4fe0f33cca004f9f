"""The routes of llama.cpp's server beside OpenAI's API, in its shapes (its tools/server/README.md).

Beside them is one of vLLM's. Only /tokenize, /detokenize, /tokenizer_info and /apply-template load a model. No reply
has the path of a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import hermes_cli
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import NotReadyError, UsageError
from hermes_cli.server.errors import RETRY_AFTER
from hermes_cli.server.llama_completion import sampling_fields
from hermes_cli.server.openai.requests import MOST_MESSAGES, MOST_TOOLS, ChatRequest
from hermes_cli.server.parsed_request import parse_chat
from hermes_cli.server.pool import Pool
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import encode, json_reply
from hermes_cli.threads import in_turn

# Characters in one request to /tokenize: so many, or for each token of context.
MOST_CHARACTERS, CHARACTERS_PER_TOKEN = 1 << 20, 8
AT_ONCE = 256  # tokens whose texts are asked of the engine together
MOST_TOKENS = 1 << 20  # in one request to /detokenize; no context is longer
ModelName = Annotated[str | None, Field(max_length=200, description="The model; the default one if it is left out.")]
_OBJECT = {"type": "object"}


class ModelQuery(BaseModel):
    """The query of /props."""

    model: ModelName = None


class SlotsQuery(ModelQuery):
    """The query of /slots."""

    fail_on_no_slot: int = 0


class Tokenize(BaseModel):
    """A text to cut into tokens."""

    content: str | None = None
    prompt: str | None = Field(None, description="As vLLM takes it, in the place of `content`.")
    add_special: bool = Field(default=False, description="Put BOS in front, if prompts begin with it.")
    add_special_tokens: bool = Field(default=True, description="The same, as vLLM takes it beside `prompt`.")
    parse_special: bool = Field(default=True, description="Let the text spell control tokens.")
    with_pieces: bool = Field(default=False, description="Return the text of each token, too.")
    model: ModelName = None


class Detokenize(BaseModel):
    """Tokens to join."""

    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True)] = Field(
        max_length=MOST_TOKENS
    )
    model: ModelName = None


class ApplyTemplate(BaseModel):
    """A conversation to render."""

    messages: Annotated[list[dict[str, Any]], Field(fail_fast=True)] = Field(min_length=1, max_length=MOST_MESSAGES)
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=MOST_TOOLS)] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool | None = Field(None, description="False ends with the last message.")
    continue_final_message: bool | None = Field(None, description="As in chats.")
    model: ModelName = None


class ModelToLoad(BaseModel):
    """A model to load or unload."""

    model: str = Field(min_length=1, max_length=200)


class RenderedPrompt(msgspec.Struct, frozen=True):
    """The prompt of a conversation."""

    prompt: str


class DetokenizedText(msgspec.Struct, frozen=True):
    """The text of tokens, with U+FFFD in place of what is no UTF-8; `prompt` is vLLM's name for it."""

    content: str
    prompt: str


class TokenWithPiece(msgspec.Struct, frozen=True):
    """A token and its text, or its bytes if they are not text by themselves."""

    id: int
    piece: str | list[int]


class TokenList(msgspec.Struct, frozen=True):
    """The tokens of a text."""

    tokens: list[int | TokenWithPiece]


async def health(request: Request) -> Response:
    """Return whether the server can answer.

    Needs no key.
    """
    state = request.app.state
    if state.pool.begun and not state.traffic.stopping:
        return json_reply({"status": "ok"})
    message = "Stopping" if state.traffic.stopping else "Loading model"
    body = {"error": {"code": 503, "message": message, "type": "unavailable_error"}}  # as llama.cpp's server has it
    return JSONResponse(body, 503, {"Retry-After": str(RETRY_AFTER)})


async def props(request: Request, query: ModelQuery) -> Response:
    """Describe the server and a model."""
    pool: Pool = request.app.state.pool
    served, model = pool.describe(query.model), pool.loaded(query.model)
    sampling = model.chat_model.recommended_sampling() if model else SamplingOptions()
    params = {**sampling_fields(sampling), "max_tokens": -1, "n_predict": -1, "stream": True}
    return json_reply(
        {
            "default_generation_settings": {
                "id": 0,
                "id_task": -1,
                "n_ctx": served.context_length,
                "speculative": bool(model and model.info.draft),
                "is_processing": False,
                "params": params,
            },
            "total_slots": served.slots,
            "model_alias": served.id,
            "model_path": pool.planned(query.model).model.file_name,
            "chat_template": model.chat_model.choice.format.source if model else "",
            "chat_template_caps": {"supports_tools": bool(served.capabilities.tools)},
            "modalities": {"vision": False, "audio": False},
            "bos_token": model.info.bos if model else "",
            "eos_token": model.info.eos if model else "",
            "build_info": f"hermes-llm-{hermes_cli.__version__}",
            "is_sleeping": served.state != "ready",
        }
    )


async def slots(request: Request, query: SlotsQuery) -> Response:
    """List what a model works on.

    Without anything of its prompts or answers.
    """
    pool: Pool = request.app.state.pool
    served = pool.describe(query.model)
    running = (await pool.stats())[served.id].running
    if query.fail_on_no_slot and len(running) >= served.slots:
        raise NotReadyError("no slot is free.", hint="ask again later.")
    listed: list[dict[str, Any]] = []
    for number in range(max(served.slots, len(running))):
        slot: dict[str, Any] = {"id": number, "n_ctx": served.context_length, "is_processing": number < len(running)}
        if number < len(running):
            state = running[number]
            slot |= {
                "id_task": state.request,
                "n_prompt_tokens": state.prompt_tokens,
                "n_prompt_tokens_processed": state.prefilled_tokens,
                "next_token": {"has_next_token": True, "n_remain": -1, "n_decoded": state.completion_tokens},
            }
        listed.append(slot)
    return json_reply(listed)


async def tokenize(request: Request, body: Tokenize) -> Response:
    """Cut a text into tokens."""
    field, text, adds_special = "content", body.content, body.add_special
    if text is None:
        field, text, adds_special = "prompt", body.prompt, body.add_special_tokens
    if text is None:
        raise UsageError("is missing.", field="content", hint="send a text.")
    async with request.app.state.pool.use(body.model, embeds=None) as model:
        most = max(MOST_CHARACTERS, CHARACTERS_PER_TOKEN * model.info.context)
        if len(text) > most:
            reason = f"has {len(text):,} characters; at most {most:,} are tokenized at once."
            raise UsageError(reason, field=field, hint="send it in parts.")
        engine = model.chat_model.engine
        tokens = await engine.tokenize(text, special=body.parse_special)
        if adds_special and model.info.adds_bos:
            tokens = [*await engine.tokenize(model.info.bos), *tokens]
        pieces: dict[int, bytes] = {}
        for some in _groups([*dict.fromkeys(tokens)] if body.with_pieces else [], AT_ONCE):
            pieces |= zip(some, await asyncio.gather(*(engine.detokenize([token]) for token in some)), strict=True)
    data = await in_turn(request.state.client, lambda: _token_list(tokens, pieces), size=4 * len(tokens))
    return Response(data, media_type="application/json")


def _groups(tokens: list[int], size: int) -> Iterator[list[int]]:
    return (tokens[at : at + size] for at in range(0, len(tokens), size))


def _token_list(tokens: list[int], pieces: dict[int, bytes]) -> bytes:
    """Return a `TokenList` as JSON, of tokens with their texts if there are any; each different one is encoded once."""
    if not pieces:
        return encode({"tokens": tokens})
    encoded = {token: encode(TokenWithPiece(token, _piece(raw))) for token, raw in pieces.items()}
    return b'{"tokens":[' + b",".join(map(encoded.__getitem__, tokens)) + b"]}"


async def detokenize(request: Request, body: Detokenize) -> Response:
    """Join tokens to a text."""
    async with request.app.state.pool.use(body.model, embeds=None) as model:
        text = await model.chat_model.engine.detokenize(body.tokens)

    def written() -> bytes:
        decoded = text.decode("utf-8", "replace")
        return encode(DetokenizedText(decoded, decoded))

    return Response(await in_turn(request.state.client, written, size=len(text)), media_type="application/json")


async def tokenizer_info(request: Request, query: ModelQuery) -> Response:
    """Describe the tokenizer, as vLLM does: lm-eval reads it to count tokens by this server."""
    async with request.app.state.pool.use(query.model) as model:
        template = model.chat_model.choice.format.source
        bos, eos = model.info.bos or None, model.info.eos or None
        return json_reply({"bos_token": bos, "eos_token": eos, "chat_template": template})


async def apply_template(request: Request, body: ApplyTemplate) -> Response:
    """Render a conversation as a prompt, and generate nothing."""
    fields = {name: getattr(body, name) for name in ApplyTemplate.model_fields}
    is_closed = body.add_generation_prompt is False and not body.continue_final_message
    if is_closed:
        fields |= {"add_generation_prompt": None, "continue_final_message": False}
    parsed = await parse_chat(ChatRequest.model_construct(**fields), request.state.client)
    async with request.app.state.pool.use(body.model) as model:
        turn = parsed.turns(model)[0]
        turn = replace(turn, options=replace(turn.options, generation_prompt=not is_closed))
        prompt = await model.chat_model.prompt(turn)
    return json_reply(RenderedPrompt(prompt.plain))


async def load_model(request: Request, body: ModelToLoad) -> Response:
    """Load a model.

    The reply comes when it is ready.
    """
    async with request.app.state.pool.use(body.model, embeds=None):
        return json_reply({"success": True})


async def unload_model(request: Request, body: ModelToLoad) -> Response:
    """Unload a model when the requests that use it are done; the next one loads it again."""
    await request.app.state.pool.unload(body.model)
    return json_reply({"success": True})


async def metrics(request: Request) -> Response:
    """Return counters and times for Prometheus."""
    state = request.app.state
    text = state.metrics.exposition(await state.pool.stats(), state.pool.describe_all(), state.pool.evictions)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_HEALTH = _json({"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]})
_SUCCESS = _json({"type": "object", "properties": {"success": {"const": True}}, "required": ["success"]})
_UNAVAILABLE = {
    "description": "The model is being loaded, or the server stops.",
    "content": _json({"type": "object", "properties": {"error": _OBJECT}}),
}
ROUTES = [
    ApiRoute("GET", "/health", health, tag="llama.cpp", reply=_HEALTH, unavailable=_UNAVAILABLE, public=True),
    ApiRoute("GET", "/v1/health", health, public=True),
    ApiRoute("GET", "/props", props, tag="llama.cpp", query=ModelQuery, reply=_json(_OBJECT)),
    ApiRoute(
        "GET",
        "/slots",
        slots,
        tag="llama.cpp",
        query=SlotsQuery,
        reply=_json({"type": "array", "items": _OBJECT}),
        unavailable={"description": "No slot is free (`fail_on_no_slot`)."},
    ),
    ApiRoute("POST", "/tokenize", tokenize, tag="llama.cpp", body=Tokenize, reply=TokenList),
    ApiRoute("POST", "/detokenize", detokenize, tag="llama.cpp", body=Detokenize, reply=DetokenizedText),
    ApiRoute("GET", "/tokenizer_info", tokenizer_info, tag="vLLM", query=ModelQuery, reply=_json(_OBJECT)),
    ApiRoute("POST", "/apply-template", apply_template, tag="llama.cpp", body=ApplyTemplate, reply=RenderedPrompt),
    ApiRoute("POST", "/models/load", load_model, tag="llama.cpp", body=ModelToLoad, reply=_SUCCESS),
    ApiRoute("POST", "/models/unload", unload_model, tag="llama.cpp", body=ModelToLoad, reply=_SUCCESS),
    ApiRoute("GET", "/metrics", metrics, tag="llama.cpp", reply={"text/plain": {}}),
]
