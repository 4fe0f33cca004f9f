"""The application: all routes, and the middleware in front of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

import hermes_cli
from hermes_cli.platforms import is_loopback
from hermes_cli.server import llama_completion, llama_server, page
from hermes_cli.server.anthropic import messages
from hermes_cli.server.errors import HANDLERS
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.ollama import chat as ollama_chat
from hermes_cli.server.ollama import embed, library
from hermes_cli.server.ollama import models as ollama_models
from hermes_cli.server.openai import chat, completions, embeddings, models, responses
from hermes_cli.server.openai.response_store import ResponseStore
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import AccessLog, Traffic
from hermes_cli.server.routing import ApiRoute, openapi
from hermes_cli.server.security import ANYBODY, BodyLimit, Gate, Keys
from hermes_cli.server.server_tools import ServerTools
from hermes_cli.server.settings import ServerSettings
from hermes_cli.server.streaming_reply import json_reply

EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - recognized, not bound
PREFLIGHT_SECONDS = 600  # that a browser may remember what it was allowed


ROUTES: list[ApiRoute] = [
    *chat.ROUTES,
    *completions.ROUTES,
    *responses.ROUTES,
    *embeddings.ROUTES,
    *messages.ROUTES,
    *models.ROUTES,
    *llama_server.ROUTES,
    *llama_completion.ROUTES,
]


OLLAMA: list[ApiRoute] = [*ollama_chat.ROUTES, *embed.ROUTES, *ollama_models.ROUTES, *library.ROUTES]


def make_app(
    settings: ServerSettings,
    pool: Pool,
    metrics: Metrics,
    write: Callable[[str], None],
    tools: ServerTools | None = None,
) -> Starlette:
    """Return the application.

    Its state has `pool`, `metrics`, `keys`, `traffic`, `responses`, `server_tools` and `library`. The pool is closed
    with it, and its engines count into the same metrics; `write` takes a line of the access log.
    """
    traffic = Traffic()
    app = Starlette(
        routes=[
            *ROUTES,
            *page.ROUTES,  # before Ollama's: both have a `/`
            *(OLLAMA if settings.ollama else ()),
            ApiRoute("GET", "/openapi.json", _openapi),
        ],
        middleware=_middleware(settings, traffic, metrics, write),
        exception_handlers=HANDLERS,
        lifespan=_lifespan,
    )
    app.state.pool, app.state.metrics, app.state.traffic = pool, metrics, traffic
    app.state.server_tools = tools
    app.state.keys, app.state.responses = Keys(settings.keys), ResponseStore()
    app.state.library = library.ModelLibrary(settings, pool)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await app.state.pool.close()


async def _openapi(request: Request) -> Response:
    return json_reply(_document(ollama=OLLAMA[0] in request.app.routes))


@cache
def _document(*, ollama: bool) -> dict[str, Any]:
    apis = "OpenAI, Anthropic, llama.cpp's server and Ollama" if ollama else "OpenAI, Anthropic and llama.cpp's server"
    about = f"Hermes models on hardware you own: the APIs of {apis}."
    return openapi([*ROUTES, *(OLLAMA if ollama else ())], "hermes", hermes_cli.__version__, about)


def _middleware(
    settings: ServerSettings, traffic: Traffic, metrics: Metrics, write: Callable[[str], None]
) -> list[Middleware]:
    """Return the middleware, the outermost first."""
    log = Middleware(
        AccessLog,
        metrics=metrics,
        traffic=traffic,
        write=write,
        timeout=settings.timeout,
        as_json=settings.log_json,
        bodies=settings.log_prompts,
    )
    own = settings.host.lower()
    bound = [] if own in EVERYWHERE else [f"[{own}]" if ":" in own else own]
    hosts = [*bound, *settings.allowed_hosts]
    gate = Middleware(Gate, hosts=hosts, any_address=not is_loopback(settings.host), origins=settings.cors)
    limit = Middleware(BodyLimit, most=settings.most_body, seconds=settings.body_timeout)
    if not settings.cors:
        return [log, gate, limit]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[ANYBODY] if ANYBODY in settings.cors else [origin.rstrip("/") for origin in settings.cors],
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        max_age=PREFLIGHT_SECONDS,
    )
    return [log, gate, cors, limit]
