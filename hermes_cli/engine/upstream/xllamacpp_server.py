"""llama-server's HTTP server out of the package xllamacpp, with llama-server's arguments.

This file is run by the Python of the environment that has xllamacpp and nothing of hermes: it imports nothing else.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

FLAGS = {
    "-m": "model",
    "-c": "ctx_size",
    "-np": "parallel",
    "-t": "threads",
    "-ngl": "n_gpu_layers",
    "-b": "batch_size",
}
FLAGS |= {"-ub": "ubatch_size", "-ctk": "cache_type_k", "-ctv": "cache_type_v"}
# llama-server's names for attributes of `CommonParams`; the others have their own.
ATTRIBUTES = {
    "ctx_size": "n_ctx",
    "parallel": "n_parallel",
    "gpu_layers": "n_gpu_layers",
    "batch_size": "n_batch",
    "ubatch_size": "n_ubatch",
    "threads_http": "n_threads_http",
    "cache_ram": "cache_ram_mib",
}


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    import xllamacpp  # type: ignore[import-not-found]  # noqa: PLC0415 - in that environment alone

    parameters = xllamacpp.CommonParams()
    words = iter(arguments)
    for word in words:
        name = FLAGS.get(word) or word.removeprefix("--").replace("-", "_")
        value = next(words, None)
        if value is None or not word.startswith("-"):
            sys.exit(f"error: unrecognized arguments: {word}: each option has a value here, as in --cache-ram 0")
        _set(parameters, name, value, word)
    server = xllamacpp.Server(parameters)
    while server.listening_address:
        threading.Event().wait()


def _set(parameters: Any, name: str, value: str, word: str) -> None:  # noqa: ANN401 - of the other package
    if name == "model":
        parameters.model.path = value
    elif name == "host":
        parameters.hostnames = [value]
    elif name == "threads":
        parameters.cpuparams.n_threads = int(value)
    elif name in {"cache_type_k", "cache_type_v"}:
        kind = type(getattr(parameters, name))
        setattr(parameters, name, getattr(kind, f"GGML_TYPE_{value.upper()}"))
    else:
        name = ATTRIBUTES.get(name, name)
        usual = getattr(parameters, name, None)
        if not isinstance(usual, (bool, int, float, str)):
            sys.exit(f"error: unrecognized arguments: {word}: xllamacpp has no {name}")
        given = value.lower() in {"1", "on", "true"} if isinstance(usual, bool) else type(usual)(value)
        setattr(parameters, name, given)


if __name__ == "__main__":
    main(sys.argv[1:])
