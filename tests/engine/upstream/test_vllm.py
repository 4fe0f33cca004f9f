"""What goes wrong between this program and vLLM or SGLang, and what it is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG
from endpoint_rig import DONE, Endpoint, Reply, endpoint, event, of_json, refusal, stream

from hermes_cli.engine.protocol import Done, EngineStats, Event
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.engine.upstream.engine import UpstreamEngine
from hermes_cli.engine.upstream.http import read_engine_url
from hermes_cli.errors import EngineError, HermesError, QueueFullError, UsageError
from hermes_cli.paths import asset

MODEL = {"id": "demo", "owned_by": "vllm", "max_model_len": 64, "root": "nowhere", "parent": None}
LORA = {"id": "lora", "owned_by": "vllm", "max_model_len": 64, "parent": "demo"}
METRICS = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="demo"} 3.0
vllm:num_requests_waiting{engine="1",model_name="demo"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="demo"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="demo"} NaN
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="100"} 1.0
vllm:num_preemptions_total{engine="0",model_name="demo"} 2.0
vllm:num_preemptions_created{engine="0",model_name="demo"} 1.79e+09
"""


def text(*ids: int, text: str = "", finish: str | None = None, **fields: Any) -> bytes:  # noqa: ANN401 - any field
    return event({"choices": [{"text": text, "token_ids": ids, "finish_reason": finish, **fields}], "usage": None})


@pytest.fixture
def server() -> Iterator[Endpoint]:
    """One whose `/tokenize` answers what vLLM does to the question whether its vocabulary is the file's."""
    recorded = (Path(__file__).parent / "vllm.jsonl").read_text("utf-8").splitlines()
    [check] = [line for line in map(json.loads, recorded) if "W\\u00f6rld".lower() in line["request"].lower()]
    with endpoint() as server:
        server.routes["/v1/models"] = of_json({"data": [LORA, MODEL]})
        server.routes["/tokenize"] = of_json(json.loads(check["answer"]))
        server.routes["trial"] = of_json({})  # it takes the grammar that is tried
        yield server


def use(server: Endpoint, *replies: Reply, tokenizer: Path | None = None, **request: Any) -> list[Event]:  # noqa: ANN401 - any field
    """The events of an answer; its engine has loaded before the replies count."""

    async def ask() -> list[Event]:
        engine = UpstreamEngine(read_engine_url(server.url), tokenizer=tokenizer or asset("demo.gguf"))
        try:
            server.routes["/v1/completions"] = server.routes.get("trial", of_json({}))
            await engine.load()
            for reply in replies:
                server.routes["/v1/completions"] = reply
            async with aclosing(engine.generate(GenerationRequest((1, 2), **request))) as events:
                return [one async for one in events]
        finally:
            await engine.close()

    return asyncio.run(asyncio.wait_for(ask(), HANG))


USAGE = event({"choices": [], "usage": {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}})
END = text(2, finish="stop") + USAGE + DONE


def test_an_answer_ends_with_its_counts(server: Endpoint) -> None:
    *events, done = use(server, stream(text(53, text="I") + text(233) + text(292, text=" am"), END), max_tokens=9)
    assert "".join(getattr(one, "text", "") for one in events) == "I am"
    assert sum(getattr(one, "tokens", 0) for one in events) == 3
    assert isinstance(done, Done)
    assert (done.reason, done.prompt_tokens, done.cached_tokens, done.completion_tokens) == ("stop", 2, 1, 3)


def test_every_option_is_stated(server: Endpoint) -> None:
    sampling = SamplingOptions(top_k=0, top_p=0, seed=7, logit_bias=((5, float("-inf")), (6, 2.0)))
    use(server, stream(END), sampling=sampling, stops=("x",), top_logprobs=0)
    body = server.last
    assert {"model": "demo", "prompt": [1, 2], "max_tokens": 62, "seed": 7, "stop": ["x"]}.items() <= body.items()
    assert {"top_k": -1, "top_p": 1e-6, "min_p": 0.05, "temperature": 0.8, "logprobs": 0}.items() <= body.items()
    assert (body["logit_bias"], body["stop_token_ids"]) == ({"5": -100.0, "6": 2.0}, [0, 2])
    assert body["skip_special_tokens"] is False
    use(server, stream(END), sampling=SamplingOptions(ignore_eos=True))
    assert (server.last["ignore_eos"], server.last["stop_token_ids"], "seed" in server.last) == (True, [], False)


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (
            stream(text(53, text="I"), event({"error": {"message": "dead", "code": 500}}), DONE),
            EngineError,
            "500: dead",
        ),
        (stream(text(53, text="I"), text(finish="abort"), DONE), EngineError, "abort"),
        (stream(text(53, text="I"), DONE), EngineError, "ended before"),
        (refusal(503, "queue is full"), QueueFullError, "queue is full"),
        (refusal(400, "top_p must be in (0, 1]"), UsageError, "top_p"),
        (refusal(404, "The model `demo` does not exist."), EngineError, "does not exist"),
    ],
)
def test_a_fault_is_an_error_whatever_follows_it(
    server: Endpoint, reply: Reply, kind: type[HermesError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        use(server, reply)


def test_a_grammar_needs_llguidance(server: Endpoint) -> None:
    server.routes["trial"] = refusal(500, "terminal intersection '&' is not supported")
    with pytest.raises(UsageError, match="cannot hold an answer to a schema") as caught:
        use(server, grammar='{"grammars": [{"lark_grammar": "start: /a/"}]}')
    assert "--structured-outputs-config.backend guidance" in str(caught.value.hint)


def test_files_of_another_vocabulary_are_refused(server: Endpoint) -> None:
    server.routes["/tokenize"] = of_json({"tokens": [0, 1, 2, 3]})
    with pytest.raises(UsageError, match="another vocabulary"):
        use(server)


def test_without_the_tokenizer_it_is_asked_for(server: Endpoint) -> None:
    async def load() -> None:
        engine = UpstreamEngine(read_engine_url(server.url))
        try:
            await engine.load()
        finally:
            await engine.close()

    with pytest.raises(UsageError, match="its tokenizer is not on this machine") as caught:
        asyncio.run(load())
    assert "--tokenizer" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (
            Reply([METRICS.encode()], kind="text/plain"),
            EngineStats("ready", queued=4, cache_cells=3200, cache_used=800, preempted=2),
        ),
        (refusal(404, "no metrics"), EngineStats("ready")),
    ],
)
def test_its_metrics_are_told(server: Endpoint, metrics: Reply, told: EngineStats) -> None:
    async def stats() -> EngineStats:
        server.routes["/metrics"] = metrics
        engine = UpstreamEngine(read_engine_url(server.url), tokenizer=asset("demo.gguf"))
        try:
            await engine.load()
            return await engine.stats()
        finally:
            await engine.close()

    assert asyncio.run(stats()) == told
