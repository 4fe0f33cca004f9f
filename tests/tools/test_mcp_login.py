"""Login to an MCP server by OAuth: a real server with the SDK's own routes, and a browser that follows redirects."""

from __future__ import annotations

import stat
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from conftest import HANG, eventually

from hermes_cli.errors import HermesError, NetworkError
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.toolbox import Consent, Toolbox

if TYPE_CHECKING:
    from mcp_login_server import Site

pytestmark = pytest.mark.slow  # it starts a process, or a server


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    from mcp_login_server import Site  # noqa: PLC0415 - not in each process that collects tests

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
