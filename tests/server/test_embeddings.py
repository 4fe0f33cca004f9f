"""POST /v1/embeddings: a tiny BERT in a process of its own, and beside it a model that writes what a script says."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import finish
from fake_engine import LOADED, FakeEngine
from openai_rig import house
from server_rig import Running, offer, planned_of, served
from tiny_bert import write_tiny_bert

from hermes_cli.engine.embedded.embedder import EmbeddingRuntime
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.loading import load
from hermes_cli.engine.embedded.messages import EngineOptions, LoadRequest
from hermes_cli.engine.protocol import Engine
from hermes_cli.engine.request import EmbeddingRequest
from hermes_cli.models.planned import PlannedModel
from hermes_cli.planning.fitted_plan import FittedPlan
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings
from hermes_cli.server.served_models import ServedModel

TEXTS = ["the cat sat", "a dog"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny-bert.gguf")


@pytest.fixture(scope="module")
def server(bert: Path) -> Iterator[Running]:
    plan = LoadPlan(ContextSettings(64, 32, pooling="mean"), threads=1)
    resolved = planned_of(offer("tiny-bert", path=bert)).resolved
    pooled = ServedModel("tiny-bert", (), PlannedModel.of(resolved, FittedPlan(plan, ()), EngineOptions()))

    def engine(model: ServedModel) -> Engine:
        return EmbeddedEngine(bert, plan) if model.model.pooling else FakeEngine(["Hello"])

    with served(offers=[offer(), pooled], engine=engine) as running:
        yield running


def embedded(server: Running, given: object, **more: object) -> dict[str, Any]:
    answer = server.post("/v1/embeddings", {"input": given, **more})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_the_vectors_are_those_of_the_engine(server: Running, bert: Path) -> None:
    plan = LoadPlan(ContextSettings(64, 32, pooling="mean"), threads=1)
    runtime = load(LoadRequest(bert, plan, EngineOptions()), lambda _: None)
    assert isinstance(runtime, EmbeddingRuntime)
    results: dict[int, Any] = {}
    embedder = runtime.scheduler(results.__setitem__)
    embedder.submit(finish(runtime.prepare(0, EmbeddingRequest(tuple(TEXTS)))))
    embedder.step()
    answer = embedded(server, TEXTS)
    assert [one["index"] for one in answer["data"]] == [0, 1]
    for one, vector in zip(answer["data"], results[0].vectors, strict=True):
        assert one["embedding"] == pytest.approx(struct.unpack("<32f", vector), abs=1e-3)
        assert math.hypot(*one["embedding"]) == pytest.approx(1)
    assert answer["usage"] == {"prompt_tokens": 5 + 4, "total_tokens": 9}
    assert (answer["object"], answer["model"], answer["data"][0]["object"]) == ("list", "tiny-bert", "embedding")


def test_floats_and_base64_are_the_same_numbers(server: Running) -> None:
    floats = embedded(server, "a dog", encoding_format="float")["data"][0]["embedding"]
    raw = base64.b64decode(embedded(server, "a dog", encoding_format="base64")["data"][0]["embedding"])
    assert floats == list(struct.unpack("<32f", raw))


def test_texts_and_their_tokens_are_the_same(server: Running) -> None:
    """Lists of ids are taken as they are: with the tokens at their ends."""
    tokens = server.post("/tokenize", {"model": "tiny-bert", "content": "the cat sat"}).json["tokens"]
    by_text = embedded(server, "the cat sat")["data"][0]["embedding"]
    for given in ([2, *tokens, 3], [[2, *tokens, 3]]):
        assert embedded(server, given)["data"][0]["embedding"] == pytest.approx(by_text, abs=1e-3)


def test_texts_in_objects_are_texts(server: Running) -> None:
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]
    texts = ["the cat", {"prompt_string": "the cat"}, {"content": parts}]
    first, *others = [item["embedding"] for item in embedded(server, texts)["data"]]
    assert others == [pytest.approx(first), pytest.approx(first)]


def test_dimensions_and_many_texts(server: Running) -> None:
    answer = embedded(server, TEXTS * 100, dimensions=8)
    assert [len(one["embedding"]) for one in answer["data"]] == [8] * 200
    assert math.hypot(*answer["data"][0]["embedding"]) == pytest.approx(1)
    assert answer["usage"]["prompt_tokens"] == 900


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (
            {"input": "Hi", "model": "demo"},
            "model",
            "is demo, which writes text and makes no embeddings. Ask tiny-bert",
        ),
        ({"input": []}, "input", "has 0 texts"),
        ({"input": ["a"] * 2049}, "input", "has 2049 texts"),
        ({"input": None}, "input", "neither text nor"),
        ({"input": ["a", 5]}, "input[1]", "neither text nor"),
        ({"input": [[]]}, "input[0]", "neither text nor"),
        ({"input": [[1, True]]}, "input[0]", "neither text nor"),
        ({"input": [5, 999]}, "input", "has token 999"),
        ({"input": "cat " * 100}, "input", "maximum context length is 64 tokens"),
        ({"input": "a", "dimensions": 64}, "dimensions", "embeddings of this model have 32 numbers"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "keep_alive": "soon"}, "keep_alive", "no duration"),
        ({}, "input", "required"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(server: Running, body: dict[str, Any], param: str, words: str) -> None:
    answer = server.post("/v1/embeddings", body)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert words.lower() in answer.error["message"].lower()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
        ("/apply-template", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
def test_a_model_for_embeddings_writes_no_text(server: Running, path: str, body: dict[str, Any]) -> None:
    answer = server.post(path, {"model": "tiny-bert", **body})
    assert answer.status == 400
    assert "is tiny-bert, which makes embeddings and writes no text. Ask demo." in answer.error["message"]


def test_the_line_up_tells_what_each_does(server: Running) -> None:
    models = server.get("/v1/models").json["data"]
    assert [(one["id"], one["capabilities"]["embeddings"], one["context_length"]) for one in models] == [
        ("demo", False, LOADED.context),
        ("tiny-bert", True, 64),
    ]
    assert server.get("/props?model=tiny-bert").json["chat_template"] == ""
    assert server.get("/slots?model=tiny-bert").status == 200


def test_without_a_model_for_embeddings_the_refusal_says_how_to_get_one() -> None:
    with house() as one:
        message = one.post("/v1/embeddings", {"input": "Hi"}).error["message"]
    assert message == (
        "model is hermes, which writes text and makes no embeddings. Serve one beside it: hermes serve hermes FILE.gguf"
    )
