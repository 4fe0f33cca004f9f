"""GET /v1/models, as agents read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from openai_rig import HERMES_3, HERMES_4, House, house
from server_rig import offer

from hermes_cli.server.openai.models import ModelList

# Hermes Agent takes the first key that it finds of these (agent/model_metadata.py, 0.19.0).
CONTEXT_KEYS = {
    "context_length",
    "context_window",
    "context_size",
    "max_context_length",
    "max_position_embeddings",
    "max_model_len",
    "max_input_tokens",
    "max_sequence_length",
    "max_seq_len",
    "n_ctx_train",
    "n_ctx",
    "ctx_size",
}


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    first = offer("hermes-4:14b", "main", "gpt-4o", known=HERMES_4, created=17, size=9, quantization="Q4_K_M")
    with house(first, offer("org/small", "auxiliary", known=HERMES_3, context=2048)) as one:
        yield one


def test_all_models_are_listed_loaded_or_not(rig: House) -> None:
    answer = rig.running.get("/v1/models")
    listed = msgspec.json.decode(answer.body, type=ModelList)
    assert answer.json["object"] == "list"
    assert [model.id for model in listed.data] == ["hermes-4:14b", "org/small"]
    first, second = answer.json["data"]
    assert first == {
        "id": "hermes-4:14b",
        "object": "model",
        "created": 17,
        "owned_by": "hermes-llm",
        "context_length": rig.engine.loaded.context,
        "max_model_len": rig.engine.loaded.context,
        "aliases": ["main", "gpt-4o"],
        "state": "ready",
        "capabilities": {"tools": True, "reasoning": True, "json": True, "embeddings": False},
        "quantization": "Q4_K_M",
        "parameters": 1000,
        "size": 9,
        "slots": 4,
    }
    assert second["state"] == "unloaded"
    assert second["context_length"] == 2048


@pytest.mark.parametrize("name", ["hermes-4:14b", "main", "GPT-4o", "org/small", "auxiliary"])
def test_one_model_by_any_name(rig: House, name: str) -> None:
    found = rig.running.get(f"/v1/models/{name}").json
    assert found in rig.running.get("/v1/models").json["data"]
    assert name.lower() in {found["id"], *(alias.lower() for alias in found["aliases"])}


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fetc%2fpasswd", "%00", "a" * 3000, "%ff"])
def test_a_model_that_there_is_not(rig: House, name: str) -> None:
    answer = rig.running.get(f"/v1/models/{name}")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_every_number_that_looks_like_a_context_length_is_one(rig: House) -> None:
    for model in rig.running.get("/v1/models").json["data"]:
        told = [value for key, value in _walk(model) if key in CONTEXT_KEYS]
        assert len(told) == 2
        assert set(told) == {model["context_length"]}


def _walk(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        for key, one in value.items():
            yield key, one
            yield from _walk(one)


def test_the_document_describes_these_routes(rig: House) -> None:
    document = rig.running.get("/openapi.json").json
    for path in ("/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/completions"):
        (operation,) = document["paths"][path].values()
        responses = operation["responses"]
        assert "422" not in responses
        assert {"200", "400", "401", "404", "413", "429", "503"} <= responses.keys()
        name = responses["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][name]["properties"]
    assert "#/$defs" not in str(document)
    body = document["components"]["schemas"]["ChatRequest"]
    assert body["required"] == ["messages"]
    assert re.search("temperature|top_p|tools", str(body["properties"].keys()))
