"""Login to an MCP server over HTTP that asks for it: OAuth 2.1 in the user's browser, as the MCP specification has it.

The SDK speaks the protocol. Here are what it needs of us: where the browser comes back to, and where tokens are kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import socket
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl, BaseModel, ValidationError

from hermes_cli import __version__, paths
from hermes_cli.errors import NetworkError
from hermes_cli.tools.config import McpAddress

TIMEOUT = 300.0  # seconds that the user has in the browser
MAX_HEAD = 16_384  # bytes of the browser's request
_PAGE = "<!doctype html><meta charset=utf-8><title>hermes</title><p>{}<p>You can close this page."


class _Kept(BaseModel):
    """The file of a server: the registered client, and the tokens of the login."""

    url: str
    client: OAuthClientInformationFull | None = None
    tokens: OAuthToken | None = None


class TokenFile:
    """The SDK's `TokenStorage`: one private file for each server, in the data folder."""

    def __init__(self, url: str) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        self.path = paths.data_dir() / "mcp-logins" / f"{name}.json"
        self.kept = _Kept(url=url)
        with suppress(OSError, ValidationError):  # a damaged file means a new login
            kept = _Kept.model_validate_json(self.path.read_bytes())
            self.kept = kept if kept.url == url else self.kept

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens of the last login."""
        return self.kept.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep tokens."""
        self.kept.tokens = tokens
        self._write()

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return how hermes is registered with the server."""
        return self.kept.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep a registration."""
        self.kept.client = client_info
        self._write()

    def _write(self) -> None:
        paths.write_private(self.path, self.kept.model_dump_json())


class BrowserLogin:
    """A login to one server, if it asks for one. Close it once the server is connected."""

    def __init__(self, server: McpAddress, tell: Callable[[str], None], begins: Callable[[], None]) -> None:
        """Prepare a login; `begins` is called when the user has to act, `tell` with what to do."""
        self._server, self._tell, self._begins = server, tell, begins
        self._tokens = TokenFile(server.url)
        self._socket = self._bound()
        self._state = ""  # of this login, in the address of its page
        address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/callback"
        metadata = OAuthClientMetadata(
            client_name="hermes",
            software_version=__version__,
            redirect_uris=[AnyUrl(address)],
            token_endpoint_auth_method="none",  # noqa: S106 - no password: a program on a user's machine keeps no secret
        )
        self.provider = OAuthClientProvider(server.url, metadata, self._tokens, self._show, self._came_back)

    async def aclose(self) -> None:
        """Give the port back."""
        self._socket.close()

    def _bound(self) -> socket.socket:
        """Bind the port that the server knows from the registration, else any, for which it is registered anew."""
        known = (
            urlsplit(str(uris[0])).port
            if (client := self._tokens.kept.client) and (uris := client.redirect_uris)
            else 0
        )
        bound = socket.socket()
        try:
            bound.bind(("127.0.0.1", known or 0))
        except OSError:
            bound.bind(("127.0.0.1", 0))
            known = 0
        bound.listen()  # a browser may be back before anybody waits for it
        if not known:
            self._tokens.kept.client = None
        return bound

    async def _show(self, url: str) -> None:
        """Send the user to the page of the login."""
        if not sys.stderr.isatty():
            raise NetworkError(
                f"the MCP server {self._server.name} wants a login, and there is no terminal to ask on.",
                hint=f"log in once by hand: hermes chat --mcp {self._server.url}",
            )
        if urlsplit(url).scheme not in {"https", "http"}:
            raise self._refused(f"its page of the login is at {url[:100]!r}")
        self._state = parse_qs(urlsplit(url).query).get("state", [""])[0]
        self._begins()
        self._tell(f"log in to {self._server.name} in your browser; if none opens, go to {url}")
        await asyncio.to_thread(webbrowser.open, url)

    async def _came_back(self) -> AuthorizationCodeResult:
        """Wait for the browser, and answer it."""
        found: asyncio.Future[AuthorizationCodeResult] = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                head = await reader.readuntil(b"\r\n\r\n")
                query = parse_qs(urlsplit(head.split(b" ", 2)[1].decode("ascii")).query)
                if query.get("state", [""])[0] != self._state:  # any page of the web can send a browser here
                    query = {}
                code, state, issuer, refusal = (query.get(key, [""])[0] for key in ("code", "state", "iss", "error"))
                text = f"hermes is logged in to {self._server.name}." if code else f"hermes was refused: {refusal}"
                page = _PAGE.format(html.escape(text)).encode()
                status = b"HTTP/1.1 200 OK" if code or refusal else b"HTTP/1.1 404 Not Found"
                writer.write(status + b"\r\nContent-Type: text/html\r\nConnection: close\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(page) + page)
                await writer.drain()
                if not found.done() and code:
                    found.set_result(AuthorizationCodeResult(code=code, state=state or None, iss=issuer or None))
                elif not found.done() and refusal:
                    found.set_exception(self._refused(refusal))
            writer.close()

        listening = await asyncio.start_server(answer, sock=self._socket.dup(), limit=MAX_HEAD)
        async with listening, asyncio.timeout(TIMEOUT):
            return await found

    def _refused(self, reason: str) -> NetworkError:
        return NetworkError(
            f"the MCP server {self._server.name} refuses the login: {reason}.", hint="try again, and allow hermes."
        )
