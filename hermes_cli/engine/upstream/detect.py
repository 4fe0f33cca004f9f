"""Detection of the kind of engine that listens at an address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hermes_cli.engine.upstream.dialect import Dialect
from hermes_cli.engine.upstream.http import UpstreamClient, UpstreamError
from hermes_cli.engine.upstream.llama_server import LlamaServer
from hermes_cli.engine.upstream.sglang import SGLang
from hermes_cli.engine.upstream.tokenizer_files import FILES, read_tokenizer
from hermes_cli.engine.upstream.vllm import VLLM
from hermes_cli.errors import NetworkError, UsageError

LOADING_PAUSE = 0.5  # seconds between questions whether a model is loaded by now
_OWNERS = {"vllm": VLLM, "sglang": SGLang}


async def dialect_of(
    client: UpstreamClient,  # connected to it
    # files of its model's tokenizer, for engines that do not tell what is in them. Without it the folder counts that
    # the engine names, if that is on this machine
    tokenizer: Path | None = None,
) -> Dialect:
    """Return the dialect of what listens there, once its model is loaded.

    Raises:
        NetworkError: nothing listens there, or nothing that is known.
        UsageError: it is `hermes serve`, which has no routes for engines, or the files of the tokenizer are missing.
    """
    props = await _answer(client, "/props")
    if str(props.get("build_info")).startswith("hermes"):
        raise UsageError(
            f"what answers at {client.address} is hermes serve.",
            hint=f"talk with it like this: hermes chat --endpoint {client.address}",
        )
    if isinstance(props.get("default_generation_settings"), dict):
        return LlamaServer(client, props)
    listed = (await _answer(client, "/v1/models")).get("data")
    models = [model for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []
    whole = next((model for model in models if model.get("parent") is None), {})  # the others are LoRA adapters
    kind = _OWNERS.get(str(whole.get("owned_by")))
    if kind is None or not isinstance(whole.get("max_model_len"), int):
        raise NetworkError(
            f"what answers at {client.address} is not an engine that hermes knows.",
            hint="start vLLM, SGLang or llama-server there; for other servers there is hermes chat --endpoint.",
        )
    path = tokenizer or _folder_of(whole)
    if path is None:
        raise UsageError(
            f"{kind.title} does not tell its model's control tokens and templates, and its tokenizer is not on this "
            "machine.",
            hint=f"give --tokenizer a folder with {', '.join(FILES)}, or a GGUF file of the same model.",
        )
    return kind(client, whole, await asyncio.to_thread(read_tokenizer, path))


def _folder_of(model: Mapping[str, Any]) -> Path | None:
    """Return the folder that an engine has loaded its model from, if it is on this machine."""
    root = model.get("root")
    if not isinstance(root, str) or not root.startswith("/"):
        return None
    folder = Path(root)
    return folder if all((folder / name).is_file() for name in FILES) else None


async def _answer(client: UpstreamClient, path: str) -> dict[str, Any]:
    """Return the JSON object of a route, once its model is loaded; an empty one where the route is not there."""
    while True:
        try:
            return dict(await client.get(path))
        except UpstreamError as error:
            if error.status in {401, 403}:
                raise error.as_hermes_error(client.address) from None
            if not error.is_loading:
                return {}
        await asyncio.sleep(LOADING_PAUSE)
