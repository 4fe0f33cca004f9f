"""The chat page at `/` as a client of HTTP sees it: who gets it, with which headers, and which files there are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from server_rig import Running, served

from hermes_cli.server.page import page_files
from hermes_cli.server.settings import Key, ServerSettings

FOLDER = REPOSITORY / "hermes_cli" / "assets" / "page"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with served(ServerSettings(keys=(Key("alice", "right-key"),), ollama=True)) as running:
        yield running


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    with served() as running:
        yield running


def test_a_browser_gets_the_page_without_a_key_and_the_api_asks_for_one(locked: Running) -> None:
    answer = locked.get("/", Accept=BROWSER)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["vary"] == "Accept"
    assert answer.body == (FOLDER / "index.html").read_bytes()
    assert locked.get("/v1/models", Accept=BROWSER).status == 401


def test_other_clients_get_what_they_got_before(locked: Running, plain: Running) -> None:
    for accept in ("*/*", "application/json"):
        assert locked.get("/", Accept=accept).body == b"Ollama is running"
        assert plain.get("/", Accept=accept).status == 404
    assert "It is here" not in plain.get("/").error["message"]
    assert locked.ask("HEAD", "/").status == 200


def test_every_file_is_there_with_its_type_and_no_other(plain: Running) -> None:
    types = {
        ".html": "text/html",
        ".js": "text/javascript",
        ".css": "text/css",
        ".svg": "image/svg+xml",
        ".txt": "text/",
    }
    names = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert names == set(page_files())
    for name in names:
        answer = plain.get(f"/page/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(types[Path(name).suffix])
        assert answer.body == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/vendor",
        "/page/vendor/",
        "/page/../demo.gguf",
        "/page/%2e%2e/demo.gguf",
        "/page/..%2fdemo.gguf",
        "/page/vendor/..%5c..%5c..%5cdemo.gguf",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/app.js%00",
        "/page/./app.js",
        "/page/vendor/../app.js",
        "/page/APP.JS",
    ],
)
def test_there_is_no_list_and_no_way_out_of_the_folder(plain: Running, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert plain.raw(head.encode()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "path", ["/", "/page/app.js", "/page/style.css", "/page/vendor/purify.min.js", "/page/icon.svg"]
)
def test_headers(plain: Running, path: str) -> None:
    headers = plain.get(path, Accept=BROWSER).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in headers["content-security-policy"]
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_browser_asks_again_and_gets_only_what_has_changed(plain: Running) -> None:
    first = plain.get("/page/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = plain.get("/page/app.js", If_None_Match=f'"other", {first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert plain.get("/page/app.js", If_None_Match='"other"').status == 200


def test_host_counts_for_the_page_too(plain: Running) -> None:
    for path in ("/", "/page/app.js"):
        assert plain.get(path, Host="evil.example", Accept=BROWSER).status == 403


def test_our_own_page_may_ask_and_others_may_not(plain: Running) -> None:
    own = f"127.0.0.1:{plain.port}"
    body = {"content": "x"}
    for origin in (f"http://{own}", f"https://{own}", f"HTTP://{own}"):
        assert plain.post("/tokenize", body, Origin=origin).status == 200, origin
    others = [
        "http://127.0.0.1",
        f"http://localhost:{plain.port}",
        f"http://127.0.0.1:{plain.port + 1}",
        f"ftp://{own}",
    ]
    for origin in (*others, f"http://{own}.evil.example", f"http://{own}/", "null"):
        answer = plain.post("/tokenize", body, Origin=origin)
        assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed"), origin
    head = f"GET /v1/models HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\nOrigin: http://evil.example\r\n"
    refused = plain.raw(f"{head}Connection: close\r\n\r\n".encode())
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"evil.example" in refused


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    for name, file in page_files().items():
        if name.startswith("vendor/") or name.endswith((".js", ".txt", ".svg")):
            continue
        text = file.content.decode()
        assert not re.search(r"https?://|\sstyle=|\son\w+=|url\(|@import", text), name
        assert not re.search(r"<script(?![^>]* src=\"page/)", text), name
    for address in re.findall(r'(?:src|href)="page/([^"]+)"', (FOLDER / "index.html").read_text("utf-8")):
        assert address in page_files()


def test_libraries_of_others_are_as_they_were_published() -> None:
    listed = dict(
        re.findall(r"^(\S+\.js) .* ([0-9a-f]{64})$", (FOLDER / "vendor/LICENSES.txt").read_text("utf-8"), re.MULTILINE)
    )
    scripts = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (FOLDER / "vendor").glob("*.js")}
    assert scripts == listed


def test_our_files_are_short() -> None:
    for path in FOLDER.iterdir():
        assert not path.is_file() or len(path.read_text("utf-8").splitlines()) <= 400, path
