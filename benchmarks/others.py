"""Two more sides for engine.py, for the record: llama-cpp-python's packaged server, and xllamacpp.

hermes needs neither what that server is made of nor xllamacpp; `HERMES_BENCH_PYTHON` names a Python that has them:

    python -m venv peers && peers/bin/pip install "llama-cpp-python[server]" xllamacpp
    HERMES_BENCH_PYTHON=peers/bin/python python benchmarks/engine.py model.gguf
"""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.material import Json
from benchmarks.sides import Counts, HttpSide, Load, Task, completion, read_completion

PYTHON = "HERMES_BENCH_PYTHON"


def others() -> tuple[tuple[HttpSide, ...], list[str]]:
    """Those that can be imported, and a note for each that cannot."""
    python = os.environ.get(PYTHON, sys.executable)
    found: list[HttpSide] = []
    notes: list[str] = []
    for kind in (PackagedServer, XLlamaCpp):
        probe = subprocess.run([python, "-c", f"import {kind.module}"], capture_output=True, check=False)
        if probe.returncode:
            notes.append(f"without {kind.name}: {python} cannot import {kind.module}; {PYTHON} names another one")
        else:
            found.append(kind(python))
    return tuple(found), notes


class PackagedServer(HttpSide):
    """`python -m llama_cpp.server`: one request at a time."""

    name = "llama_cpp.server"
    module = "llama_cpp.server.app"
    health = "/v1/models"

    def __init__(self, python: str) -> None:
        self._python = python

    def command(self, load: Load, port: int) -> list[str]:
        """How it is started; by default a new request would end the one that runs."""
        threads = str(load.threads)
        return [
            *(self._python, "-m", "llama_cpp.server", "--model", str(load.path), "--n_ctx", str(load.cells)),
            *("--n_threads", threads, "--n_threads_batch", threads, "--n_gpu_layers", str(load.gpu_layers)),
            *("--host", "127.0.0.1", "--port", str(port), "--interrupt_requests", "False", "--flash_attn", "True"),
        ]

    def request(self, task: Task) -> tuple[str, Json]:
        """Path and body; it cannot be told to ignore the end of an answer."""
        return "/v1/completions", {
            "prompt": task.prompt,
            "max_tokens": task.tokens,
            "temperature": 0,
            "repeat_penalty": 1,
            "stream": True,
        }

    def read(self, event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
        """An event's text; it has no counts."""
        return event["choices"][0]["text"] if event.get("choices") else "", None


class XLlamaCpp(HttpSide):
    """llama.cpp's server as a Python extension; built from a llama.cpp of its own."""

    name = "xllamacpp"
    module = "xllamacpp"
    _program = """
import json, sys, threading, xllamacpp
given = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = given["path"], ["127.0.0.1"], given["port"]
params.n_ctx, params.n_parallel, params.kv_unified = given["cells"], given["slots"], True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given["threads"]
params.n_gpu_layers = given["gpu_layers"]
server = xllamacpp.Server(params)
threading.Event().wait()
"""

    def __init__(self, python: str) -> None:
        self._python = python

    def command(self, load: Load, port: int) -> list[str]:
        """How it is started."""
        given = {**vars(load), "path": str(load.path), "port": port}
        return [self._python, "-c", self._program, json.dumps(given)]

    def request(self, task: Task) -> tuple[str, Json]:
        """As llama-server's."""
        return "/completion", completion(task)

    def read(self, event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
        """As llama-server's."""
        return read_completion(event)
