"""A program that speaks llama-server's dialect on a Unix socket, with a worker process, and fails when it is told to.

Tokens are bytes. A prompt tells what happens: `hang` streams one token and no more, `die` ends the program in the
middle of a stream, `sick` makes `/health` answer 503 as vLLM does once a worker is gone, and so does NUL, which is what
a heartbeat asks; anything else is answered by "ok".
It takes llama-server's arguments; DUMMY_START says how it starts (`alone` waits for another node, which has joined once
a file stands beside that of the process ids), and DUMMY_PIDS is a file for its process ids.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

STATE = {"status": 200}
FOREVER = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "local"

    def do_GET(self) -> None:
        answers = {
            "/health": {},
            "/slots": [],
            "/props": {
                "default_generation_settings": {"n_ctx": 1000, "params": {}},
                "total_slots": 4,
                "chat_template": "{{ messages[0].content }}",
            },
            "/v1/models": {"data": [{"meta": {"n_params": 1, "n_vocab": 256}}]},
        }
        self.reply(answers[self.path], STATE["status"] if self.path == "/health" else 200)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            parts = body["content"] if isinstance(body["content"], list) else [body["content"]]
            tokens = [token for part in parts for token in ([part] if isinstance(part, int) else part.encode())]
            self.reply({"tokens": tokens})
        elif self.path == "/detokenize":
            self.reply({"content": bytes(body["tokens"]).decode()})
        elif not body.get("stream"):
            self.reply({"generation_settings": {"grammar": ""}})
        else:
            self.stream(bytes(body["prompt"]).decode("latin-1"))

    def stream(self, prompt: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.event({"content": "o", "tokens": [111], "tokens_predicted": 1})
        if "hang" in prompt:
            FOREVER.wait()
        if "die" in prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        if "sick" in prompt or "\0" in prompt:
            STATE["status"] = 503
        self.event({"content": "k", "tokens": [107], "tokens_predicted": 2, "stop": True, "stop_type": "eos"})

    def event(self, value: dict[str, object]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def reply(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    if "--version" in arguments:
        say("version: 7.5 (dummy)")
        return
    start, socket = os.environ.get("DUMMY_START", ""), arguments[arguments.index("--host") + 1]
    worker = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    Path(os.environ["DUMMY_PIDS"]).write_text(f"{os.getpid()} {worker.pid}")
    if start == "slow":
        for step in range(15):
            say(f"Loading shards: {step}%")
            time.sleep(0.2)
    if start == "alone":
        joined = Path(f"{os.environ['DUMMY_PIDS']}.joined")
        while not joined.exists():
            time.sleep(0.05)
    if start == "silent":
        FOREVER.wait()
    if start == "fail":
        say("(EngineCore pid=7) ERROR 11-30 18:00:01 [core.py:1104] ValueError: there is no such thing")
        say("RuntimeError: Engine core initialization failed. See root cause above")
        sys.exit(1)
    Server(socket, Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
