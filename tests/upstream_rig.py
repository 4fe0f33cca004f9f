"""Engines for tests: their answers were recorded, and are replayed to exactly the requests that they were for.

With the address of a real one that has the demo model (for a llama-server its path), the tests talk with that, and its
answers are recorded anew; `make test-engines` starts such a vLLM:

    HERMES_TEST_LLAMA_SERVER=…/llama-server pytest -n 0 tests/engine/upstream tests/journeys/test_engine_url.py
    HERMES_TEST_VLLM=http://127.0.0.1:8000 pytest -n 0 tests/engine/upstream tests/journeys/test_engine_url.py
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from conftest import HANG

import hermes_cli
from hermes_cli.server.sockets import listen, port_of

ASSETS = Path(hermes_cli.__file__).parent / "assets"


@contextmanager
def recorded_engine(kind: str) -> Iterator[str]:
    """The address of one with the demo model and 1,024 tokens of context.

    A `llama_server` has 2 slots and no llguidance; `vllm` and `sglang` have it.
    """
    recorded = Path(__file__).parent / "engine" / "upstream" / f"{kind}.jsonl"
    real = os.environ.get(f"HERMES_TEST_{kind.upper()}", "")
    with ExitStack() as stack:
        if real and not real.startswith("http"):
            real = stack.enter_context(_real(real))
        yield stack.enter_context(_http(recorded, real))


def _answers(recorded: Path) -> dict[str, dict[str, Any]]:
    if not recorded.exists():
        return {}
    lines = recorded.read_text("utf-8").splitlines()
    return {line["request"]: line for line in map(json.loads, lines)}


@contextmanager
def _http(recorded: Path, real: str) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"recorded": recorded, "answers": _answers(recorded), "real": real})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANG)


@contextmanager
def _real(binary: str) -> Iterator[str]:
    sockets = listen("127.0.0.1", 0)
    port = port_of(sockets)
    for one in sockets:
        one.close()
    arguments = [
        binary,
        "-m",
        "demo.gguf",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "-c",
        "2048",
        "-np",
        "2",
        "-t",
        "1",
    ]
    with subprocess.Popen(arguments, cwd=ASSETS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while process.poll() is None:
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/health", timeout=HANG).close()  # noqa: S310 - loopback
                    break
            yield url
        finally:
            process.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorded: ClassVar[Path]
    answers: ClassVar[dict[str, dict[str, Any]]]
    real: ClassVar[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: object) -> None:
        request = f"{self.command} {self.path}" + ("" if body is None else f" {json.dumps(body, sort_keys=True)}")
        if self.real:
            self.record(request, body)
        default = {"status": 404, "type": "application/json", "answer": '{"error": {"message": "not recorded"}}'}
        reply = self.answers.get(request, default)
        data = reply["answer"].encode()
        self.send_response(reply["status"])
        self.send_header("Content-Type", reply["type"])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):  # a budget of reasoning closes it
            self.wfile.write(data)

    def record(self, request: str, body: object) -> None:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.real}{self.path}", data, headers)  # noqa: S310 - loopback
        try:
            reply = urllib.request.urlopen(asked, timeout=HANG)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            kind = reply.headers.get_content_type()
            self.answers[request] = {
                "request": request, "status": reply.status, "type": kind, "answer": reply.read().decode()
            }  # fmt: skip
        lines = [json.dumps(line, ensure_ascii=False) for _, line in sorted(self.answers.items())]
        self.recorded.write_text("\n".join(lines) + "\n", "utf-8")
