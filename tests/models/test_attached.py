"""Models in engines that somebody else runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from conftest import HANG
from endpoint_rig import Endpoint, Reply, endpoint, of_json, refusal

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.engine.upstream import engine as upstream
from hermes_cli.errors import UsageError
from hermes_cli.models.attached import attach
from hermes_cli.models.resolve import ModelRequest

PROPS = {"default_generation_settings": {"n_ctx": 64, "params": {}}, "total_slots": 3}


def beats(server: Endpoint) -> list[Any]:
    return [
        asked.body for asked in list(server.asked) if asked.path == "/completion" and asked.body.get("n_predict") == 1
    ]


@pytest.mark.parametrize("nodes", ["2", " 3 "])
def test_an_engine_that_is_said_to_run_on_several_machines_gets_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch, nodes: str
) -> None:
    monkeypatch.setenv("HERMES_LLM_ENGINE_NODES", nodes)
    monkeypatch.setattr(upstream, "HEARTBEAT", 0.001)

    async def use(server: Endpoint) -> None:
        _, engine = await attach(ModelRequest("demo", engine_url=server.url), load_catalogue())
        try:
            while not beats(server):  # noqa: ASYNC110 - the server is in a thread, and tells nobody
                await asyncio.sleep(0.001)
        finally:
            await engine.close()

    class Tokens:
        def __iter__(self) -> Iterator[bytes]:  # each text becomes a number of tokens that none of one token has
            content = server.last["content"]
            yield json.dumps({"tokens": [-1] * content.count(-1) if isinstance(content, list) else [1]}).encode()

    with endpoint() as server:
        server.routes["/props"] = of_json(PROPS)
        server.routes["/v1/models"] = of_json({"data": [{"id": "m", "meta": {"n_vocab": 9}}]})
        server.routes["/tokenize"] = Reply(cast("list[bytes]", Tokens()), kind="application/json")
        server.routes["/completion"] = refusal(400, "no grammars")
        asyncio.run(asyncio.wait_for(use(server), HANG))
        assert beats(server)[0]["prompt"] == [0]


def test_a_number_of_machines_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_LLM_ENGINE_NODES", "two")
    request = ModelRequest("demo", engine_url="http://127.0.0.1:9")
    with pytest.raises(UsageError, match="HERMES_LLM_ENGINE_NODES=two is no number of machines"):
        asyncio.run(attach(request, load_catalogue()))
