"""What clients of llama.cpp's server ask beside OpenAI's API, in its shapes (its tools/server/README.md).

None of it loads a model but for /tokenize, /detokenize and /apply-template. Nothing tells where files are.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

import hermes_cli
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import NotReadyError
from hermes_cli.generation import PromptOptions, TurnRequest
from hermes_cli.prompting import normalize
from hermes_cli.server.errors import RETRY_AFTER
from hermes_cli.server.security import GuardedRoute, public

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import EngineStats, SequenceState
    from hermes_cli.server.pool import Pool

MOST_TOKENS = 4_000_000  # in one request to /detokenize; no context is longer
UNNAMED = Query(default=None, max_length=200, description="The model; the default one if it is left out.")

router = APIRouter(route_class=GuardedRoute, tags=["llama.cpp"])


class Health(BaseModel):
    """The server is ready."""

    status: str = "ok"


class UnavailableObject(BaseModel):
    """Why it is not."""

    code: int
    message: str
    type: str


class Unavailable(BaseModel):
    """The server is not ready; in the shape of llama.cpp's errors, for what watches its health."""

    error: UnavailableObject


class Tokenize(BaseModel):
    """A text to cut into tokens."""

    content: str
    add_special: bool = Field(default=False, description="Put the begin-of-text token in front, if prompts have one.")
    parse_special: bool = Field(default=True, description="Let the text spell control tokens.")
    with_pieces: bool = Field(default=False, description="Tell the text of each token, too.")
    model: str | None = Field(default=None, max_length=200)


class Detokenize(BaseModel):
    """Tokens to put together."""

    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=MOST_TOKENS)
    model: str | None = Field(default=None, max_length=200)


class ApplyTemplate(BaseModel):
    """A conversation to write as the model reads it."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    model: str | None = Field(default=None, max_length=200)


class Prompt(BaseModel):
    """What the model reads."""

    prompt: str


class Text(BaseModel):
    """What tokens stand for; U+FFFD in place of what is no text."""

    content: str


class Piece(BaseModel):
    """A token and its text, or its bytes if they are no text by themselves."""

    id: int
    piece: str | list[int]


class Tokens(BaseModel):
    """The tokens of a text."""

    tokens: list[int] | list[Piece]


@router.get(
    "/health",
    responses={
        200: {"model": Health},
        503: {"model": Unavailable, "description": "The model is being loaded, or the server stops."},
    },
)
@router.get("/v1/health", include_in_schema=False)
@public
async def health(request: Request) -> Response:
    """Whether the server can answer. Needs no key."""
    state = request.app.state
    if state.traffic.stopping:
        return _unavailable("Stopping")
    if not state.pool.begun:
        return _unavailable("Loading model")
    return Response('{"status":"ok"}', media_type="application/json")


@router.get("/props")
async def props(request: Request, model: str | None = UNNAMED) -> dict[str, Any]:
    """What there is to know about the server and a model."""
    pool: Pool = request.app.state.pool
    card, served = pool.card(model), pool.served(model)
    sampling = served.chatter.recommended_sampling() if served else SamplingOptions()
    return {
        "default_generation_settings": {
            "id": 0,
            "id_task": -1,
            "n_ctx": card.context_length,
            "speculative": bool(served and served.loaded.draft),
            "is_processing": False,
            "params": _params(sampling),
        },
        "total_slots": card.slots,
        "model_alias": card.name,
        "model_path": pool.offer(model).path.name,
        "chat_template": served.chatter.choice.format.source if served else "",
        "chat_template_caps": {"supports_tools": bool(card.capabilities.tools)},
        "modalities": {"vision": False, "audio": False},
        "bos_token": served.loaded.bos if served else "",
        "eos_token": served.loaded.eos if served else "",
        "build_info": f"hermes-llm-{hermes_cli.__version__}",
        "is_sleeping": card.state != "ready",
    }


@router.get("/slots", responses={503: {"description": "No slot is free, and `fail_on_no_slot` was given."}})
async def slots(request: Request, model: str | None = UNNAMED, fail_on_no_slot: int = 0) -> list[dict[str, Any]]:
    """What a model works on. There is nothing of what it reads or writes in it.

    Raises:
        NotReadyError: all slots are taken, and the client wants that to be an error.
    """
    pool: Pool = request.app.state.pool
    card = pool.card(model)
    stats: EngineStats = (await pool.stats())[card.name]
    if fail_on_no_slot and len(stats.running) >= card.slots:
        raise NotReadyError("no slot is free.", hint="ask again later.")
    free = [None] * max(card.slots - len(stats.running), 0)
    return [_slot(number, card.context_length, at_work) for number, at_work in enumerate((*stats.running, *free))]


@router.post("/tokenize")
async def tokenize(request: Request, body: Tokenize) -> Tokens:
    """Cut a text into tokens."""
    pool: Pool = request.app.state.pool
    async with pool.use(body.model) as served:
        engine = served.chatter.engine
        tokens = await engine.tokenize(body.content, special=body.parse_special)
        if body.add_special and served.loaded.adds_bos:
            tokens = [*await engine.tokenize(served.loaded.bos), *tokens]
        if not body.with_pieces:
            return Tokens(tokens=tokens)
        texts = {token: await engine.detokenize([token]) for token in dict.fromkeys(tokens)}
        return Tokens(tokens=[Piece(id=token, piece=_piece(texts[token])) for token in tokens])


@router.post("/detokenize")
async def detokenize(request: Request, body: Detokenize) -> Text:
    """Put tokens together."""
    pool: Pool = request.app.state.pool
    async with pool.use(body.model) as served:
        return Text(content=(await served.chatter.engine.detokenize(body.tokens)).decode("utf-8", "replace"))


@router.post("/apply-template")
async def apply_template(request: Request, body: ApplyTemplate) -> Prompt:
    """Write a conversation as the model reads it, and generate nothing."""
    pool: Pool = request.app.state.pool
    messages, tools = normalize.messages(body.messages), normalize.tools(body.tools)
    async with pool.use(body.model) as served:
        said = body.chat_template_kwargs
        think = said.get("enable_thinking", said.get("thinking", served.think))
        wishes = PromptOptions(think=think if isinstance(think, bool) else None)
        prompt = await served.chatter.prompt(TurnRequest(messages, tools, wishes=wishes))
        return Prompt(prompt=prompt.plain)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    state = request.app.state
    text = state.metrics.exposition(await state.pool.stats(), state.pool.cards(), state.pool.evictions)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> dict[str, Any]:
    """The API, described."""
    described: dict[str, Any] = request.app.openapi()
    return described


def _unavailable(message: str) -> Response:
    """As llama.cpp's server says it."""
    body = {"error": {"code": 503, "message": message, "type": "unavailable_error"}}
    return JSONResponse(body, 503, {"Retry-After": str(RETRY_AFTER)})


def _params(sampling: SamplingOptions) -> dict[str, Any]:
    """Sampling in llama.cpp's names."""
    named = asdict(replace(sampling, logit_bias=()))
    renamed = {
        "repeat_last_n": named.pop("penalty_last_n"),
        "dry_sequence_breakers": list(named.pop("dry_breakers")),
        "max_tokens": -1,
        "n_predict": -1,
        "stream": True,
    }
    del named["logit_bias"]
    return {**named, **renamed, "seed": 2**32 - 1 if sampling.seed is None else sampling.seed}


def _slot(number: int, context: int, at_work: SequenceState | None) -> dict[str, Any]:
    slot: dict[str, Any] = {"id": number, "n_ctx": context, "is_processing": at_work is not None}
    if at_work:
        slot |= {
            "id_task": at_work.request,
            "n_prompt_tokens": at_work.prompt_tokens,
            "n_prompt_tokens_processed": at_work.prefilled_tokens,
            "next_token": {"has_next_token": True, "n_remain": -1, "n_decoded": at_work.completion_tokens},
        }
    return slot


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
