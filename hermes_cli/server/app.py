"""All routes of the server in one application, with what stands before them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import hermes_cli
from hermes_cli.server import native
from hermes_cli.server.access_log import AccessLog, Traffic
from hermes_cli.server.anthropic import messages
from hermes_cli.server.description import Described
from hermes_cli.server.errors import HANDLERS
from hermes_cli.server.openai import chat, completions, models, responses
from hermes_cli.server.openai.responses_store import Store
from hermes_cli.server.security import ANYBODY, BodyLimit, Gate, GuardedRoute, Keys, is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fastapi import APIRouter, FastAPI

    from hermes_cli.server.metrics import Metrics
    from hermes_cli.server.pool import Pool
    from hermes_cli.server.settings import ServerSettings

EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - recognized, not bound
PREFLIGHT_SECONDS = 600  # that a browser may remember what it was allowed


def make_app(settings: ServerSettings, pool: Pool, metrics: Metrics, write: Callable[[str], None]) -> FastAPI:
    """The application; its state has `settings`, `pool`, `metrics`, `keys`, `traffic` and `responses`.

    Args:
        settings: as resolved.
        pool: the models; it is closed with the application.
        metrics: what the pool's engines count into, too.
        write: takes a line of the access log.
    """
    traffic = Traffic()
    app = Described(
        title="hermes",
        version=hermes_cli.__version__,
        description="Hermes models on hardware you own: the APIs of OpenAI, Anthropic and llama.cpp's server.",
        openapi_url=None,  # a route of its own that needs the key
        docs_url=None,  # those pages load programs from elsewhere
        redoc_url=None,
        exception_handlers=HANDLERS,
        lifespan=_lifespan,
        middleware=_before(settings, traffic, metrics, write),
    )
    app.state.settings, app.state.pool, app.state.metrics = settings, pool, metrics
    app.state.keys, app.state.traffic = Keys(settings.keys), traffic
    app.state.responses = Store()
    for router in _routers():
        _check_guarded(router)
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await app.state.pool.close()


def _before(
    settings: ServerSettings, traffic: Traffic, metrics: Metrics, write: Callable[[str], None]
) -> list[Middleware]:
    """What a request passes on its way to the routes, the first first."""
    passed = [
        Middleware(
            AccessLog,
            metrics=metrics,
            traffic=traffic,
            write=write,
            timeout=settings.timeout,
            as_json=settings.log_json,
            bodies=settings.log_prompts,
        ),
        Middleware(
            Gate,
            hosts=_hosts(settings),
            any_address=not is_loopback(settings.host),
            origins=settings.cors,
        ),
    ]
    if settings.cors:
        origins = [ANYBODY] if ANYBODY in settings.cors else [origin.rstrip("/") for origin in settings.cors]
        passed.append(
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                max_age=PREFLIGHT_SECONDS,
            )
        )
    passed.append(Middleware(BodyLimit, most=settings.most_body, seconds=settings.body_timeout))
    return passed


def _hosts(settings: ServerSettings) -> set[str]:
    """The names that the server goes by."""
    own = settings.host.lower()
    bound = set() if own in EVERYWHERE else {f"[{own}]" if ":" in own else own}
    return bound | {name.lower() for name in settings.allowed_hosts}


def _routers() -> list[APIRouter]:
    return [chat.router, completions.router, responses.router, messages.router, models.router, native.router]


def _check_guarded(router: APIRouter) -> None:
    """No route may be reached around the guard.

    Raises:
        TypeError: a router was made without `route_class=GuardedRoute`.
    """
    for route in router.routes:
        if not isinstance(route, GuardedRoute):
            raise TypeError(f"{getattr(route, 'path', route)} is not guarded")
