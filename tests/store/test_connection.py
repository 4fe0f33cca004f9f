"""Proxies and tokens on the way to the Hub."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import RunHermes
from hub_server import Hub, serving

from hermes_cli.errors import NetworkError
from hermes_cli.store.connection import check_connection

REPO = "somebody/Some-GGUF"
Talk = Callable[[socket.socket], None]


@pytest.fixture
def hub(demo_path: Path) -> Iterator[Hub]:
    with serving(Hub({REPO: {"some-Q8_0.gguf": demo_path}})) as running:
        yield running


@contextmanager
def proxy(talk: Talk) -> Iterator[str]:
    """A proxy that does with each connection what `talk` does; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def socks5(connection: socket.socket) -> None:
    """Connect as RFC 1928 says, and pass on what both sides send."""
    with connection:
        connection.recv(2 + connection.recv(2, socket.MSG_PEEK)[1])
        connection.sendall(b"\5\0")
        numbers = connection.recv(4)[3] == 1  # an address of IPv4, else a name
        host = socket.inet_ntoa(connection.recv(4)) if numbers else connection.recv(connection.recv(1)[0]).decode()
        target = socket.create_connection((host, int.from_bytes(connection.recv(2), "big")))
        connection.sendall(b"\5\0\0\1" + bytes(6))

        def pump(source: socket.socket, sink: socket.socket) -> None:
            while data := source.recv(65_536):
                sink.sendall(data)

        threading.Thread(target=pump, args=(connection, target), daemon=True).start()
        pump(target, connection)


def refusing(connection: socket.socket) -> None:
    """Want a password that nobody gave."""
    with connection:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("scheme", ["socks5", "socks", "SOCKS5h"])
def test_a_proxy_that_speaks_socks(hermes: RunHermes, hub: Hub, scheme: str) -> None:
    with proxy(socks5) as address:
        done = hermes("show", REPO, env={**hub.environment, "ALL_PROXY": f"{scheme}://{address}/"})
    assert done.returncode == 0, done.stderr
    hub.requests.clear()
    dead = hermes("show", REPO, env={**hub.environment, "ALL_PROXY": f"{scheme}://{address}/"})
    assert (dead.returncode, hub.requests) == (5, []), "it goes through the proxy only"
    assert f"the proxy in ALL_PROXY ({address}) cannot be reached" in dead.stderr


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://me:secret@127.0.0.1:9", "the proxy in http_proxy (127.0.0.1:9) cannot be reached"),
        ("127.0.0.1:9", "the proxy in http_proxy (127.0.0.1:9) cannot be reached"),
        ("socks4://me:secret@127.0.0.1:9", "the proxy in http_proxy, socks4://127.0.0.1:9, is not understood"),
        ("http://127.0.0.1:port", "the proxy in http_proxy, http://127.0.0.1:port, is not understood"),
        ("http://", "the proxy in http_proxy, http://, is not understood"),
    ],
)
def test_a_proxy_that_does_not_do_is_named(hermes: RunHermes, hub: Hub, address: str, says: str) -> None:
    done = hermes("show", REPO, env={**hub.environment, "http_proxy": address})
    assert done.returncode == 5
    assert says in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [("http://127.0.0.1:9", "the proxy wants a name and password"), ("https://127.0.0.1:9", "refuses: 407 Proxy Auth")],
)
def test_a_proxy_that_wants_a_password(hermes: RunHermes, endpoint: str, says: str) -> None:
    with proxy(refusing) as address:
        variables = {"HF_ENDPOINT": endpoint, "HTTP_PROXY": f"http://{address}", "HTTPS_PROXY": f"http://{address}"}
        done = hermes("show", REPO, env=variables)
    assert done.returncode == 5
    assert says in done.stderr


def test_socks_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    with pytest.raises(NetworkError, match="the proxy in ALL_PROXY speaks SOCKS") as caught:
        check_connection()
    assert "pip install 'httpx2[socks]'" in caught.value.hint


def test_what_needs_no_proxy_is_not_blamed_on_it(hermes: RunHermes) -> None:
    variables = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:7", "NO_PROXY": "127.0.0.1"}
    done = hermes("show", REPO, env=variables)
    assert "the Hub (http://127.0.0.1:9) cannot be reached" in done.stderr


@pytest.mark.parametrize(
    ("token", "letter"), [("hf_s\u00f6cret", "'\u00f6'"), ("hf_se cret", "' '"), ("\u201chf_secret\u201d", "'\u201c'")]
)
def test_a_token_with_a_letter_that_no_token_has(hermes: RunHermes, hub: Hub, token: str, letter: str) -> None:
    done = hermes("show", REPO, env={**hub.environment, "HF_TOKEN": token})
    assert done.returncode == 5
    assert f"the token in HF_TOKEN has the letter {letter}, which no token has" in done.stderr
    assert "cret" not in done.stderr
    assert hub.requests == []
