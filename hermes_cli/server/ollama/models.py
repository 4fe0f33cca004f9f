"""The routes of Ollama's API about models: those that the server offers, in Ollama's shapes."""

from __future__ import annotations

import hashlib
import math
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import hermes_cli
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.gguf.shards import read_model
from hermes_cli.server.ollama.requests import ollama_route, served_name
from hermes_cli.server.ollama.schemas import ANY_OBJECT, API_VERSION, NamedModel, timestamp
from hermes_cli.server.pool import Pool
from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.streaming_reply import json_reply
from hermes_cli.store.hashing import known_sha256

FOR_EVER = 100 * 365 * 86_400  # seconds; Ollama, too, writes a date for it
_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))
_TEMPLATE = "tokenizer.chat_template"
_FIM = "tokenizer.ggml.fim_pre_token_id"


class FileInfo(NamedTuple):
    """Facts about a model's files."""

    metadata: dict[str, str | float]  # numbers and short texts of its header
    architecture: str
    parameters: int
    bytes: int
    digest: str  # the SHA-256 of its first file or, where it was never computed, of its name, size and time


async def running(_: Request) -> Response:
    """Answer as Ollama does, which clients recognize it by."""
    return PlainTextResponse("Ollama is running")


async def version(_: Request) -> Response:
    """Tell whose API this is, and who answers."""
    return json_reply({"version": API_VERSION, "hermes": hermes_cli.__version__})


async def tags(request: Request) -> Response:
    """List the models that are served, loaded or not."""
    pool: Pool = request.app.state.pool
    return json_reply({"models": [_listed(pool, model.id) for model in pool.describe_all()]})


async def ps(request: Request) -> Response:
    """List the models that are loaded, with the memory that their plans take."""
    pool: Pool = request.app.state.pool
    models = []
    for model in pool.describe_all():
        if model.state != "ready":
            continue
        left, places = pool.seconds_left(model.id), pool.planned(model.id).model.places
        total, in_ram = (sum(place.part.total for place in some) for some in (places, places[:1]))
        listed = _listed(pool, model.id)
        del listed["modified_at"], listed["capabilities"]
        expires = _timestamp_in(FOR_EVER if left is None else left)
        listed |= {"size": total, "size_vram": total - in_ram, "expires_at": expires}
        models.append({**listed, "context_length": model.context_length})
    return json_reply({"models": models})


async def show(request: Request, body: NamedModel) -> Response:
    """Describe a model. Its context length is what a request can use, not what it was trained for."""
    pool: Pool = request.app.state.pool
    name = served_name(pool, body.named)
    info, described = _file_info(pool, name), pool.describe(name)
    listed = _listed(pool, name)
    # Clients take the context from either place (Hermes Agent, editors), and fill it.
    context = {f"{info.architecture}.context_length": described.context_length}
    return json_reply(
        {
            "license": str(info.metadata.get("general.license", "")),
            "modelfile": f"# hermes serves a GGUF file; there is no Modelfile.\nFROM {described.id}\n",
            "parameters": f"num_ctx                        {described.context_length}",
            "template": str(info.metadata.get(_TEMPLATE, "")),
            "details": listed["details"],
            "model_info": {key: value for key, value in info.metadata.items() if key != _TEMPLATE}
            | {"general.parameter_count": info.parameters}
            | context,
            "capabilities": listed["capabilities"],
            "modified_at": listed["modified_at"],
        }
    )


async def refuse(request: Request) -> Response:
    """Refuse what this server does not do for its clients."""
    path = request.scope["path"]
    raise UsageError(f"{path} is not supported.", hint="this server makes no models, and uploads none.")


def _timestamp_in(seconds: float) -> str:
    """Return the time in so many seconds."""
    return timestamp(time.time() + seconds)


def _listed(pool: Pool, name: str) -> dict[str, Any]:
    served, info, described = pool.planned(name), _file_info(pool, name), pool.describe(name)
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": timestamp(served.created),
        "size": info.bytes,
        "digest": info.digest,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": info.architecture,
            "families": [info.architecture],
            "parameter_size": _short(info.parameters),
            "quantization_level": served.quantization or "unknown",
            "context_length": described.context_length,
            "embedding_length": info.metadata.get(f"{info.architecture}.embedding_length", 0),
        },
        "capabilities": _capabilities(pool, name, info),
    }


def _capabilities(pool: Pool, name: str, info: FileInfo) -> list[str]:
    """Return what a model can do; before it is loaded, by its template."""
    described, loaded, template = pool.describe(name).capabilities, pool.loaded(name), str(info.metadata.get(_TEMPLATE))
    if described.embeddings:
        return ["embedding"]
    tools = "tools" in template if described.tools is None else described.tools
    reasons = loaded.chat_model.choice.format.reasons if loaded else described.reasoning
    thinks = "think" in template if reasons is None else reasons
    fills_in = bool(loaded.info.fim) if loaded else _FIM in info.metadata
    able = {"completion": True, "tools": tools, "thinking": thinks, "insert": fills_in}
    return [capability for capability, has in able.items() if has]


def _file_info(pool: Pool, name: str) -> FileInfo:
    served = pool.planned(name)
    path = served.model.path
    if path is None:  # an engine that somebody else runs has it
        loaded = pool.loaded(name)
        parameters = loaded.info.parameters if loaded else 0
        return FileInfo({}, "unknown", parameters, served.size, hashlib.sha256(served.name.encode()).hexdigest())
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except (OSError, HermesError):  # it is gone, or being replaced: the other models are listed all the same
        return FileInfo({}, "unknown", 0, served.size, hashlib.sha256(path.name.encode()).hexdigest())


@lru_cache(maxsize=64)
def _read(path: Path, size: int, changed: int) -> FileInfo:
    """Read the header of a file, as it was when it had this size and time of its last change."""
    paths, headers = read_model(path)
    metadata = {
        key: value
        for key, value in headers[0].metadata.items()
        if isinstance(value, str | int | float) and not (isinstance(value, float) and not math.isfinite(value))
    }
    identity = hashlib.sha256(f"{path.name} {size} {changed}".encode()).hexdigest()
    return FileInfo(
        metadata,
        headers[0].text("general.architecture") or "unknown",
        sum(math.prod(tensor.shape) for header in headers for tensor in header.tensors),
        sum(one.stat().st_size for one in paths),
        known_sha256(path) or identity,
    )


def _short(number: int) -> str:
    """Return a number of parameters as Ollama writes it: 8.0B."""
    return next((f"{number / unit:.1f}{letter}" for unit, letter in _UNITS if number >= unit), str(number))


ROUTES = [
    ApiRoute("GET", "/", running, public=True),
    ApiRoute("HEAD", "/", running, public=True),
    ollama_route("GET", "/api/version", version, reply=ANY_OBJECT),
    ApiRoute("HEAD", "/api/version", version),
    ollama_route("GET", "/api/tags", tags, reply=ANY_OBJECT),
    ApiRoute("HEAD", "/api/tags", tags),
    ollama_route("GET", "/api/ps", ps, reply=ANY_OBJECT),
    ollama_route("POST", "/api/show", show, body=NamedModel, reply=ANY_OBJECT),
    ApiRoute("POST", "/api/create", refuse),
    ApiRoute("POST", "/api/push", refuse),
    ApiRoute("POST", "/api/blobs/{digest}", refuse),
]
