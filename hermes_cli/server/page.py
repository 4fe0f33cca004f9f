"""The chat page at `/`: static files of the package, for browsers.

The files need no key, since they hold no secret; what the page asks of the API needs one like any other client.
No path is made of a URL: only the names that the folder has are known.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable  # noqa: TC003 - as light as the line above

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from hermes_cli.server.routing import ApiRoute

INDEX = "index.html"
_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
# No script, style or image but of these files, no request to any other server, no frame around the page.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # ask each time whether it has changed: an update of hermes counts at once
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, _File]:
    """Return the files of the page by their path below its folder."""
    return dict(_files(files("hermes_cli") / "assets" / "page"))


def _files(folder: Traversable, prefix: str = "") -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found += _files(entry, f"{name}/")
        elif media_type := _MEDIA_TYPES.get(name.rpartition(".")[2]):
            content = entry.read_bytes()
            found.append((name, _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')))
    return found


class BrowserRoute(ApiRoute):
    """A route for browsers alone: other clients, which do not ask for HTML, go on to the routes after it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a request that accepts HTML by name; `*/*`, as programs send it, does not."""
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        return super().matches(scope) if b"text/html" in accepted.lower() else (Match.NONE, {})


async def page(request: Request) -> Response:
    """Return the chat page."""
    reply = _reply(request, INDEX)
    reply.headers["Vary"] = "Accept"
    return reply


async def page_file(request: Request) -> Response:
    """Return a script, a style or an icon of the page."""
    return _reply(request, request.path_params["name"])


def _reply(request: Request, name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise HTTPException(404)
    headers = {**_HEADERS, "ETag": file.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


ROUTES: list[ApiRoute] = [
    BrowserRoute("GET", "/", page, public=True),
    ApiRoute("GET", "/page/{name:path}", page_file, public=True),
]
