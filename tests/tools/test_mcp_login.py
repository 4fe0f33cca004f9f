"""Login to an MCP server by OAuth: a real server with the SDK's own routes, and a browser that follows redirects."""

from __future__ import annotations

import asyncio
import secrets
import socket
import stat
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import uvicorn
from conftest import HANG, eventually
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions
from mcp.server.mcpserver import MCPServer
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl

from hermes_cli.errors import HermesError, NetworkError
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.config import McpAddress
from hermes_cli.tools.toolbox import Consent, Toolbox

pytestmark = pytest.mark.slow  # it starts a process, or a server


class Accounts(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """An authorization server whose user agrees to everything, or to nothing."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.refuses = False
        self.logins = 0

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id or ""] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.logins += 1
        if self.refuses:
            return construct_redirect_uri(str(params.redirect_uri), error="access_denied", state=params.state)
        code = secrets.token_urlsafe(20)
        self.codes[code] = AuthorizationCode(
            code=code,
            client_id=client.client_id or "",
            scopes=params.scopes or [],
            expires_at=time.time() + 600,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        return construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)

    async def load_authorization_code(
        self,
        client: OAuthClientInformationFull,  # noqa: ARG002 - the SDK's signature
        authorization_code: str,
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        token = secrets.token_urlsafe(20)
        self.tokens[token] = AccessToken(
            token=token,
            client_id=client.client_id or "",
            scopes=authorization_code.scopes,
            resource=authorization_code.resource,
        )
        return OAuthToken(access_token=token)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        raise NotImplementedError  # its tokens never expire

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        raise NotImplementedError

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.tokens.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise NotImplementedError


class Site:
    """The MCP server, its accounts and its address."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self.root = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        auth = AuthSettings(
            issuer_url=AnyHttpUrl(self.root),
            resource_server_url=AnyHttpUrl(f"{self.root}/mcp"),
            client_registration_options=ClientRegistrationOptions(enabled=True),
            validate_token_resource=True,
        )
        server = MCPServer("notes", auth_server_provider=self.accounts, auth=auth, log_level="ERROR")

        @server.tool()
        def whisper() -> str:
            """Tell a secret."""
            return "secret"

        self._uvicorn = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_config=None, lifespan="on"))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._uvicorn.serve(sockets=[self._listening])))
        self._thread.start()
        eventually(lambda: self._uvicorn.started)

    @property
    def address(self) -> McpAddress:
        return McpAddress("notes", f"{self.root}/mcp")

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(HANG)
        self._listening.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages of a user's browser; it does what an authorization server tells it."""
    pages: list[str] = []

    def visit(url: str) -> bool:
        pages.append(httpx2.get(url, follow_redirects=True, trust_env=False, timeout=HANG).text)
        return True

    monkeypatch.setenv("HERMES_LLM_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda url: threading.Thread(target=visit, args=[url]).start())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return pages


def whisper(site: Site, told: list[str]) -> str:
    toolbox = Toolbox(Consent(None, everything=True), told.append)
    try:
        toolbox.begin([site.address])
        toolbox.ready()
        return toolbox.run(ToolCall("whisper", {})).text
    finally:
        toolbox.close()


def test_one_login_in_the_browser_is_enough(site: Site, browser: list[str], tmp_path: Path) -> None:
    told: list[str] = []
    before = site.accounts.logins
    assert whisper(site, told) == "secret"
    assert whisper(site, told) == "secret"
    assert site.accounts.logins == before + 1
    assert "log in to notes in your browser" in told[0]
    eventually(lambda: browser)
    assert "hermes is logged in to notes" in browser[0]
    (kept,) = (tmp_path / "mcp-logins").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.write_text("damaged")
    assert whisper(site, told) == "secret"
    assert site.accounts.logins == before + 2


def test_a_refusal_is_told(site: Site, browser: list[str]) -> None:
    site.accounts.refuses = True
    try:
        with pytest.raises(NetworkError, match="refuses the login: access_denied"):
            whisper(site, [])
    finally:
        site.accounts.refuses = False
    eventually(lambda: browser)
    assert "hermes was refused" in browser[0]


def test_without_a_terminal_it_says_how_to_log_in(
    site: Site, browser: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with pytest.raises(HermesError, match="wants a login, and there is no terminal") as caught:
        whisper(site, [])
    assert f"hermes chat --mcp {site.root}/mcp" in caught.value.hint
    assert not browser


def test_a_page_of_the_web_cannot_end_a_login(site: Site, browser: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It can send a browser to the port, with a code or a refusal, but does not know the login's state."""
    visit = webbrowser.open
    answers: list[int] = []

    def others_first(url: str) -> None:
        back = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        queries = ("code=evil&state=guessed", "error=access_denied", "code=evil")
        answers.extend(httpx2.get(f"{back}?{query}", trust_env=False, timeout=HANG).status_code for query in queries)
        visit(url)

    monkeypatch.setattr(webbrowser, "open", lambda url: threading.Thread(target=others_first, args=[url]).start())
    assert whisper(site, []) == "secret"
    assert answers == [404, 404, 404]
    assert browser
