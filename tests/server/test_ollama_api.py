"""Ollama's API on the wire, with an engine that says what a script says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_engine import LOADED, FakeEngine, Script, Step
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types
from openai_rig import CALL, HERMES_3, HERMES_4, TOOL
from server_rig import Answer, Running, offer, served

from hermes_cli.engine.protocol import Logprob, TextEvent, TokenLogprobs
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import EngineDiedError
from hermes_cli.paths import asset
from hermes_cli.server.ollama import chat as ollama_chat
from hermes_cli.server.settings import OLLAMA_PORT, Key, ServerSettings, SettingValue, resolve
from hermes_cli.server.streaming_reply import StreamingReply

ASKED = [{"role": "user", "content": "Hi"}]


class House:
    """A server, and the one engine behind it."""

    def __init__(self, running: Running, engine: FakeEngine) -> None:
        self.running, self.engine = running, engine

    def post(self, path: str, script: Script, /, **body: object) -> Answer:
        self.engine.scripts = [script]
        self.engine.requests.clear()
        return self.running.post(path, {"model": "hermes", **body})

    def chat(self, script: Script = ("Hello",), /, **body: object) -> Answer:
        return self.post("/api/chat", script, **{"messages": ASKED, **body})

    def whole(self, script: Script = ("Hello",), /, **body: object) -> dict[str, Any]:
        answer = self.chat(script, stream=False, **body)
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json
        return found

    def asked(self, **body: object) -> GenerationRequest:
        self.whole(**body)
        return self.engine.requests[0]


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    engine = FakeEngine([["Hello"]], replace(LOADED, fim=(257, 258, 259)))
    demo = asset("demo.gguf")
    models = [
        offer("hermes", "gpt-4o", known=HERMES_4, path=demo, created=17, quantization="Q4_K_M"),
        offer("org/small:3b", known=HERMES_3, path=demo, context=2048),
    ]
    with served(ServerSettings(ollama=True), models, lambda _: engine) as running:
        yield House(running, engine)


def lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.decode().splitlines()]


def test_the_stream_on_the_wire(rig: House) -> None:
    """Requests stream unless they say otherwise."""
    answer = rig.chat(["Hel", "lo\u2028!"])
    first, second, last = lines(answer)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first.pop("created_at"))
    assert first == {"model": "hermes", "message": {"role": "assistant", "content": "Hel"}, "done": False}
    assert second["message"]["content"] == "lo\u2028!"
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 2)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (1_000_000, 2_000_000)
    assert last["total_duration"] >= last["load_duration"] >= 0
    assert "warnings" not in last


def test_a_call_is_sent_whole_with_its_arguments_as_an_object(rig: House) -> None:
    answer = rig.chat(["Well. ", *CALL, "\n", *CALL.replace("Oslo", "Tokyo")], tools=[TOOL])
    calls = [call for line in lines(answer) for call in line["message"].get("tool_calls", [])]
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "get_weather", "arguments": {"city": "Oslo"}},
        {"index": 1, "name": "get_weather", "arguments": {"city": "Tokyo"}},
    ]
    assert lines(answer)[-1]["done_reason"] == "stop"
    assert rig.whole([CALL], tools=[TOOL])["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}


def test_a_call_that_was_cut_off_is_left_out_and_told(rig: House) -> None:
    cut = rig.whole(list(CALL[:50]), tools=[TOOL], options={"num_predict": 50})
    assert "tool_calls" not in cut["message"]
    assert cut["done_reason"] == "length"
    assert cut["warnings"] == ["a call of get_weather was cut off, and is left out."]


def test_options_are_sampling_and_what_means_nothing_is_told(rig: House) -> None:
    options = {"temperature": 0.5, "top_k": 7.0, "num_predict": 9, "seed": 3, "stop": "END", "repeat_last_n": -1}
    reply = rig.whole(options={**options, "num_gpu": 99, "numctx": 1, "num_ctx": 1_000_000, "numa": None})
    asked = rig.engine.requests[0]
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed, sampling.penalty_last_n) == (0.5, 7, 3, -1)
    assert asked.max_tokens == 9
    assert "END" in asked.stops
    assert reply["warnings"] == [
        "options.num_gpu is set when the server starts, and changes nothing.",
        "options.numctx is not known here, and changes nothing.",
        "options.num_ctx is 1000000; the context of this model is 4096 tokens.",
    ]
    assert rig.asked(options={"num_predict": -2}).max_tokens is None


@pytest.mark.parametrize("think", [True, False, "low", None])
def test_thinking(rig: House, think: object) -> None:
    script = ["<think>\nHm.\n</think>\n", "Yes."] if think else ["Yes."]
    message = rig.whole(script, think=think)["message"]
    assert message["content"].strip() == "Yes."
    assert ("thinking" in message) == bool(think)
    reasoning = rig.engine.requests[0].reasoning
    assert reasoning
    assert (reasoning.budget == 1024) == (think == "low")


@pytest.mark.parametrize("form", ["json", {"type": "object", "properties": {"a": {"type": "integer"}}}])
def test_a_format_is_a_grammar(rig: House, form: object) -> None:
    assert rig.asked(format=form).grammar
    assert rig.asked(format="").grammar is None


def test_the_whole_history_comes_through(rig: House) -> None:
    """Without ids, as most clients have it; with ids in another order; with thoughts and roles in capitals."""
    call = {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    other = {"id": "b", "function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
    history = [
        {"role": "System", "content": "Be brief."},
        *ASKED,
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "tool_call_id": "unknown", "content": "rain"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", **call}, other]},
        {"role": "tool", "tool_call_id": "b", "content": "sun"},
        {"role": "tool", "tool_call_id": "a", "content": "snow"},
    ]
    prompt = "".join(map(str, rig.asked(messages=history, tools=[TOOL]).prompt))
    assert "Be brief." in prompt
    assert prompt.index("Oslo") < prompt.index("rain") < prompt.index("snow") < prompt.index("sun")


def test_a_prompt_is_a_chat_unless_it_is_raw(rig: House) -> None:
    reply = rig.post("/api/generate", ["Yes."], prompt="Is it?", system="Be brief.", stream=False).json
    assert reply["response"] == "Yes."
    prompt = "".join(map(str, rig.engine.requests[0].prompt))
    assert prompt.index("Be brief.") < prompt.index("Is it?")
    streamed = lines(rig.post("/api/generate", [" upon"], prompt="Once", raw=True))
    assert [line["response"] for line in streamed] == [" upon", ""]
    assert (rig.engine.requests[0].prompt, rig.engine.requests[0].max_tokens) == (("Once",), None)
    rig.post("/api/generate", ["mid"], prompt="a", suffix="z", stream=False)
    assert [request.prompt for request in rig.engine.requests] == [(257, 97, 258, 122, 259)]


def test_log_probabilities(rig: House) -> None:
    token = TokenLogprobs(Logprob(72, b"H", -0.5), (Logprob(72, b"H", -0.5),))
    script: list[Step] = [TextEvent("H", 1, (token,))]
    for reply in (rig.whole(script, logprobs=True, top_logprobs=1), lines(rig.chat(script, logprobs=True))[0]):
        (one,) = reply["logprobs"]
        assert (one["token"], one["logprob"], one["bytes"]) == ("H", -0.5, [72])
    raw = rig.post("/api/generate", script, prompt="x", raw=True, logprobs=True, stream=False).json
    assert raw["logprobs"] == rig.whole(script, logprobs=True)["logprobs"]


def test_nothing_to_say_loads_and_unloads(rig: House) -> None:
    loads = rig.engine.loads
    reply = rig.post("/api/generate", [], stream=True).json
    assert (reply["done_reason"], reply["response"], reply["done"]) == ("load", "", True)
    reply = rig.post("/api/chat", [], model="org/small:3b", keep_alive=0).json
    assert (reply["done_reason"], reply["message"]["content"]) == ("unload", "")
    assert not rig.engine.requests
    assert rig.engine.loads == loads, "what is not loaded is not loaded to be unloaded"


def test_the_models_as_clients_list_them(rig: House) -> None:
    listed = rig.running.get("/api/tags").json["models"]
    assert [(one["name"], one["model"], one["details"]["quantization_level"]) for one in listed] == [
        ("hermes", "hermes", "Q4_K_M"),
        ("org/small:3b", "org/small:3b", "unknown"),
    ]
    first = listed[0]
    assert (first["modified_at"], first["details"]["parameter_size"]) == ("1970-01-01T00:00:17Z", "3.8M")
    assert re.fullmatch("[0-9a-f]{64}", first["digest"])
    assert [one["name"] for one in rig.running.get("/api/ps").json["models"]] == ["hermes"]
    assert rig.running.get("/api/version").json["version"] == "0.32.0"
    assert rig.running.get("/").body == b"Ollama is running"
    assert rig.running.ask("HEAD", "/").status == rig.running.ask("HEAD", "/api/tags").status == 200


def test_replies_are_what_the_document_says(rig: House) -> None:
    document = rig.running.get("/openapi.json").json
    for path, body, replies in (
        ("/api/chat", {"messages": ASKED}, ["<think>Hm</think>Hi"]),
        ("/api/generate", {"prompt": "Hi"}, ["Hi"]),
        ("/api/pull", {"model": "hermes"}, []),
    ):
        content = document["paths"][path]["post"]["responses"]["200"]["content"]
        whole, line = content["application/json"]["schema"], content["application/x-ndjson"]["itemSchema"]
        components = {"components": document["components"]}
        Draft202012Validator(whole | components).validate(rig.post(path, replies, stream=False, **body).json)
        for piece in lines(rig.post(path, replies, **body)):
            Draft202012Validator(line | components).validate(piece)
    for path in ("/api/tags", "/api/ps", "/api/show", "/api/embed", "/api/embeddings", "/api/copy", "/api/delete"):
        assert path in document["paths"]


def test_a_model_is_shown_with_the_context_that_requests_have(rig: House) -> None:
    for name in ({"model": "gpt-4o"}, {"name": "hermes:latest"}):
        shown = rig.running.post("/api/show", name).json
        assert shown["model_info"]["llama.context_length"] == 4096
        assert shown["model_info"]["general.architecture"] == "llama"
        assert shown["capabilities"] == ["completion", "tools", "thinking", "insert"]
        assert "{%" in shown["template"]
        assert "/" not in shown["modelfile"].replace("# ", "")
    assert rig.running.post("/api/show", {"model": "org/small:3b"}).json["parameters"].split() == ["num_ctx", "2048"]


def test_a_file_that_is_gone_takes_no_other_model_from_the_list(tmp_path: Path) -> None:
    models = [offer("here", path=asset("demo.gguf")), offer("gone", path=tmp_path / "gone.gguf")]
    with served(ServerSettings(ollama=True), models) as running:
        listed = running.get("/api/tags").json["models"]
        assert [(one["name"], one["details"]["family"]) for one in listed] == [("here", "llama"), ("gone", "unknown")]
        assert running.post("/api/show", {"model": "gone"}).json["capabilities"] == ["completion"]


def test_open_web_ui_s_requests(rig: House) -> None:
    """As its backend sends them (routers/ollama.py): lists, then a chat whose lines it passes on."""
    assert rig.running.get("/api/tags", user_agent="Python/3.11 aiohttp/3.14").json["models"][0]["model"] == "hermes"
    assert rig.running.get("/api/ps").json["models"]
    assert tuple(int(part) for part in rig.running.get("/api/version").json["version"].split(".")) >= (0, 1, 16)
    assert rig.running.get("/v1/models").json["data"][0]["id"] == "hermes"
    payload = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, *ASKED],
        "options": {"temperature": 0.7, "num_ctx": 2048, "stop": ["x"]},
        "stream": True,
        "keep_alive": "5m",
        "format": None,
        "tools": [],
    }
    replies = lines(rig.chat(["a", "b"], **payload))
    assert "".join(reply["message"]["content"] for reply in replies) == "ab"
    last = replies[-1]
    assert last["done"]
    assert {"total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration"} <= last.keys()


def test_hermes_agent_finds_ollama_and_then_the_right_context(rig: House) -> None:
    """Its probes in their order (agent/model_metadata.py): what it takes from Ollama is what a request has."""
    assert rig.running.get("/api/v1/models").status == 404
    assert "models" in rig.running.get("/api/tags").json
    shown = rig.running.post("/api/show", {"name": "hermes"}).json
    assert int(next(line for line in shown["parameters"].split("\n") if "num_ctx" in line).split()[-1]) == 4096
    assert "vision" not in shown["capabilities"]
    answer = rig.running.post(
        "/v1/chat/completions", {"model": "hermes", "messages": ASKED, "options": {"num_ctx": 4096}, "think": False}
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/chat", {"messages": "Hi"}, "messages: "),
        ("/api/chat", {"messages": [{"role": "nobody", "content": ""}]}, "messages[0].role"),
        ("/api/chat", {"messages": [{"content": ""}]}, "messages[0].role"),
        ("/api/chat", {"messages": ["Hi"]}, "messages[0] must be an object"),
        ("/api/chat", {"messages": [{**ASKED[0], "images": ["AA=="]}]}, "messages[0].images[0]"),
        ("/api/chat", {"messages": ASKED, "options": {"temperature": "hot"}}, "options.temperature"),
        ("/api/chat", {"messages": ASKED, "options": {"top_p": 7}}, "options.top_p is 7"),
        ("/api/chat", {"messages": ASKED, "format": "yaml"}, "format is 'yaml'"),
        ("/api/chat", {"messages": ASKED, "format": {"type": 5}}, "format"),
        ("/api/chat", {"messages": ASKED, "think": "a lot"}, 'think is "a lot"'),
        ("/api/chat", {"messages": ASKED, "keep_alive": "soon"}, "keep_alive is no duration"),
        ("/api/chat", {"messages": ASKED, "top_logprobs": 21}, "top_logprobs"),
        ("/api/generate", {"prompt": "Hi", "context": [1]}, "context is not supported"),
        ("/api/generate", {"prompt": "Hi", "images": ["AA=="]}, "images is not supported"),
        ("/api/generate", {"prompt": "Hi", "template": "{{ .Prompt }}"}, "template is not supported"),
        ("/api/generate", {"prompt": "Hi", "raw": True, "system": "x"}, "system cannot go together"),
        ("/api/embed", {"input": "Hi"}, "makes no embeddings"),
        ("/api/create", {}, "/api/create is not supported"),
        ("/api/push", {}, "/api/push is not supported"),
        ("/api/blobs/sha256:abc", {}, "is not supported"),
    ],
)
def test_what_makes_no_sense_is_refused_in_ollama_s_shape(
    rig: House, path: str, body: dict[str, Any], words: str
) -> None:
    answer = rig.post(path, ["x"], **body)
    assert answer.status == 400, answer.body
    assert answer.json.keys() == {"error"}
    assert words in answer.json["error"]
    assert not rig.engine.requests


def test_errors_of_the_server_have_that_shape_too(rig: House) -> None:
    missing = rig.running.post("/api/chat", {"model": "nope", "messages": ASKED})
    assert (missing.status, missing.json["error"][:41]) == (404, "model not found: there is no model 'nope'")
    assert "error" in rig.running.get("/api/nothing").json
    assert rig.running.ask("POST", "/api/chat", b"{").json["error"].startswith("the body of the request is not JSON")
    broken = lines(rig.chat(["a", EngineDiedError("it died.", hint="ask again.")]))
    assert broken[-1] == {"error": "it died. Ask again."}


def test_curl_without_a_header_is_understood(rig: House) -> None:
    """As Ollama's documentation has it; pages of the web are told apart by their origin, and refused."""
    rig.engine.scripts = [["Hello"]]
    body = json.dumps({"model": "hermes", "messages": ASKED, "stream": False}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert rig.running.ask("POST", "/api/chat", body, form).json["message"]["content"] == "Hello"
    assert rig.running.ask("POST", "/api/chat", body, {**form, "Origin": "https://evil.example"}).status == 403
    assert rig.running.ask("POST", "/v1/chat/completions", body, form).status == 400


def test_a_silent_stream_is_kept_alive_by_empty_pieces(rig: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_chat, "StreamingReply", partial(StreamingReply, silence=0.01))
    wait = asyncio.Event()

    def script(_: GenerationRequest) -> Iterator[Step]:
        asyncio.get_running_loop().call_later(0.1, wait.set)
        yield wait
        yield "late"

    replies = lines(rig.chat(script))
    assert len(replies) > 2
    assert all(reply["message"] == {"role": "assistant", "content": ""} for reply in replies[:-2])


def test_without_the_setting_there_is_none_of_it() -> None:
    with served(ServerSettings(), [offer()]) as running:
        assert running.get("/").status == 404
        for path in ("/api/tags", "/api/version", "/api/ps"):
            answer = running.get(path)
            assert (answer.status, answer.json["error"][-21:]) == (404, "hermes serve --ollama")


def test_with_keys_all_of_it_needs_one_but_the_greeting() -> None:
    with served(ServerSettings(keys=(Key("a", "sk"),), ollama=True), [offer(path=asset("demo.gguf"))]) as running:
        assert running.get("/").status == 200
        for path in ("/api/tags", "/api/version", "/api/ps"):
            assert running.get(path).status == 401
            assert running.get(path, authorization="Bearer sk").status == 200
        assert running.post("/api/chat", {"messages": ASKED}).json["error"].startswith("a key is needed")


def test_the_port_is_ollama_s_unless_another_is_given() -> None:
    told = {"ollama": SettingValue(True, "--ollama")}  # noqa: FBT003 - as it is typed
    assert resolve(told, {}).settings.port == OLLAMA_PORT
    assert resolve({**told, "port": SettingValue(0, "--port")}, {}).settings.port == 0
    assert resolve({}, {}).settings.port == 8080
