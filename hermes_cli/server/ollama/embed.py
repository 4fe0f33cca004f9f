"""POST /api/embed and, for older clients, /api/embeddings."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hermes_cli.engine.request import EmbeddingRequest
from hermes_cli.errors import HermesError
from hermes_cli.server.errors import Problem, problem
from hermes_cli.server.ollama.requests import LOADING, ollama_route, served_name
from hermes_cli.server.ollama.schemas import ANY_OBJECT, NANOSECONDS, OllamaEmbeddings, OllamaEmbedRequest
from hermes_cli.server.openai.embeddings import embed, floats, inputs
from hermes_cli.server.parsed_request import parse_keep_alive
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import MOST_WARNINGS, aside, current_warnings, warn
from hermes_cli.server.streaming_reply import StreamingReply, encode
from hermes_cli.threads import in_turn


async def embed_texts(request: Request, body: OllamaEmbedRequest) -> Response:
    """Embed texts. A text that is too long is cut only if `truncate` says so."""
    given = [] if body.input in (None, "") else body.input
    pool: Pool = request.app.state.pool
    began = time.monotonic()

    async def work(reply: StreamingReply) -> None:
        numbers, tokens = await _embeddings(pool, body, given, request.state.client)
        total = round((time.monotonic() - began) * NANOSECONDS)
        whole = OllamaEmbeddings(
            model=body.named,
            embeddings=numbers,
            total_duration=total,
            load_duration=0 if numbers else total,
            prompt_eval_count=tokens,
            warnings=current_warnings(),
        )
        await reply.whole_json(await in_turn(request.state.client, lambda: encode(whole), size=sum(map(len, numbers))))

    return StreamingReply(work, stream=False, problem=partial(_problem, field="input"))


async def embed_prompt(request: Request, body: OllamaEmbedRequest) -> Response:
    """Embed one text."""

    async def work(reply: StreamingReply) -> None:
        given = [body.prompt] if body.prompt else []
        numbers, _ = await _embeddings(request.app.state.pool, body, given, request.state.client)
        await reply.whole({"embedding": numbers[0] if numbers else []})

    return StreamingReply(work, stream=False, problem=partial(_problem, field="prompt"))


async def _embeddings(
    pool: Pool, body: OllamaEmbedRequest, given: object, client: str
) -> tuple[list[msgspec.Raw], int]:
    """Return the embeddings, as JSON, and the number of tokens; without texts, load the model."""
    name, keep_alive = served_name(pool, body.named), parse_keep_alive(body.keep_alive)
    options = (option for option, value in (body.options or {}).items() if value is not None)
    for option in islice(options, MOST_WARNINGS):
        why = "is set when the server starts" if option in {*LOADING, "num_ctx"} else "means nothing to embeddings"
        warn(f"options.{option[:40]} {why}, and changes nothing.")
    if given == []:
        async with pool.use(name, embeds=True, keep_alive=keep_alive):
            return [], 0
    texts = await aside(client, lambda: tuple(inputs(given)))
    asked = EmbeddingRequest(texts, body.dimensions or None, truncate=body.truncate is True, client=client)
    _, result = await embed(pool, name, asked, keep_alive)
    for index in result.truncated:
        warn(f"input[{index}] had {result.tokens[index]} tokens, and was cut.")

    def written() -> list[msgspec.Raw]:
        return [msgspec.Raw(encode(floats(vector))) for vector in result.vectors]

    size = sum(map(len, result.vectors))
    return await in_turn(client, written, size=size), sum(result.tokens)


def _problem(error: HermesError, field: str) -> Problem:
    return problem(error, "ollama", prompt_field=field, max_tokens=0)


ROUTES = [
    ollama_route("POST", "/api/embed", embed_texts, body=OllamaEmbedRequest, reply=OllamaEmbeddings),
    ollama_route("POST", "/api/embeddings", embed_prompt, body=OllamaEmbedRequest, reply=ANY_OBJECT),
]
