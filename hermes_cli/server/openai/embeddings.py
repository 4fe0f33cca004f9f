"""POST /v1/embeddings: a vector of length 1 for each text."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.engine.protocol import Embeddings
from hermes_cli.engine.request import EmbeddingRequest
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting import normalize
from hermes_cli.server.errors import Problem, problem
from hermes_cli.server.openai.requests import Duration, LenientModel, Text, Whole
from hermes_cli.server.parsed_request import parse_keep_alive
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import aside, current_warnings
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import StreamingReply, encode
from hermes_cli.threads import in_turn

MOST_INPUTS = 2048  # texts of one request, as OpenAI has it
_TEXT = {"type": "string"}
_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_SEVERAL = {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS}
_INPUT = {"anyOf": [_TEXT, _TOKENS, {**_SEVERAL, "items": _TEXT}, {**_SEVERAL, "items": _TOKENS}]}

_VECTOR = {"anyOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]}


class EmbeddingsBody(LenientModel):
    """OpenAI's Embeddings."""

    model: Text | None = Field(None, description="A served name or alias; empty is the first model for embeddings.")
    input: Annotated[Any, WithJsonSchema(_INPUT)] = Field(description="A text, a list of texts, or of token ids.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="`base64` is that of 32-bit floats, little-endian."
    )
    dimensions: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="Numbers to keep of each vector, which gets the length 1 again."
    )
    keep_alive: Duration = Field(None, description="How long the model stays in memory afterwards.")


class EmbeddingObject(msgspec.Struct, frozen=True, kw_only=True):
    """The embedding of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_VECTOR)]


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """Tokens of all texts together."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """The embeddings, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
    """Embed texts.

    OpenAI's Embeddings; unknown fields are ignored.
    """
    client = request.state.client
    texts = await aside(client, lambda: tuple(inputs(body.input)))
    asked = EmbeddingRequest(texts, body.dimensions, client=client)
    keep_alive, as_text = parse_keep_alive(body.keep_alive), body.encoding_format == "base64"

    async def work(reply: StreamingReply) -> None:
        name, result = await embed(request.app.state.pool, body.model, asked, keep_alive)
        tokens = sum(result.tokens)

        def written() -> bytes:
            data = [
                EmbeddingObject(
                    index=index,
                    embedding=msgspec.Raw(encode(base64.b64encode(vector).decode() if as_text else floats(vector))),
                )
                for index, vector in enumerate(result.vectors)
            ]
            usage = EmbeddingUsage(tokens, tokens)
            return encode(EmbeddingList(data=data, model=name, usage=usage, warnings=current_warnings()))

        await reply.whole_json(await in_turn(client, written, size=sum(map(len, result.vectors))))

    return StreamingReply(work, stream=False, problem=_problem)


async def embed(
    pool: Pool, model: str | None, request: EmbeddingRequest, keep_alive: float | None
) -> tuple[str, Embeddings]:
    """Return the name of a model, and its embeddings of texts."""
    async with pool.use(model, embeds=True, keep_alive=keep_alive) as ready:
        return ready.name, await ready.chat_model.engine.embed(request)


def inputs(sent: Any) -> Iterator[str | tuple[int, ...]]:  # noqa: ANN401 - as it was sent
    """Yield the texts, or lists of token ids, of a request; raise UsageError if it has something else."""
    is_tokens = isinstance(sent, list) and all(type(token) is int for token in sent)
    listed: Sequence[object] = sent if isinstance(sent, list) and not (is_tokens and sent) else [sent]
    if not 1 <= len(listed) <= MOST_INPUTS:
        raise UsageError(f"has {len(listed)} texts.", field="input", hint=f"send 1 to {MOST_INPUTS:,}.")
    normalize.check(sent, "input")
    for index, text in enumerate(listed):
        text = _text_in(text)  # noqa: PLW2901 - the same in another form
        if isinstance(text, str):
            yield normalize.repaired(text)
        elif isinstance(text, list) and text and all(type(token) is int for token in text):
            yield tuple(text)
        else:
            field = f"input[{index}]" if isinstance(sent, list) else "input"
            hint = "send a text, a list of texts, or of token ids."
            raise UsageError("is neither text nor a list of token ids.", field=field, hint=hint)


def _text_in(value: object) -> object:
    """Return the text of an object, as llama.cpp's server takes it: `prompt_string`, or `content` of parts of text."""
    if not isinstance(value, dict):
        return value
    parts = value.get("content")
    if (
        isinstance(parts, list)
        and parts
        and all(isinstance(part, dict) and part.get("type") == "text" for part in parts)
    ):
        return "".join(str(part.get("text", "")) for part in parts)
    return value.get("prompt_string", value)


def floats(vector: bytes) -> list[float]:
    """Return the numbers of a vector."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _problem(error: HermesError) -> Problem:
    return problem(error, prompt_field="input", max_tokens=0)


ROUTES = [
    ApiRoute("POST", "/v1/embeddings", embeddings, tag="OpenAI", body=EmbeddingsBody, reply=EmbeddingList),
]
