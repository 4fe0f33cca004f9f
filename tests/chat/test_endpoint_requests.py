"""What an endpoint is asked, which of its models, and `hermes serve` as an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint_rig import HI, STOP, TOOL, Endpoint, Reply, ask, delta, endpoint, of_json, refusal, stream
from server_rig import hermes_serve

from hermes_cli.chat.backend import ChatBackend
from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.chat.endpoint.endpoint_backend import Endpoint as EndpointSource
from hermes_cli.chat.endpoint.endpoint_backend import EndpointBackend
from hermes_cli.errors import ContextFullError, NotFoundError, UsageError
from hermes_cli.event_loop import EventLoop
from hermes_cli.prompting.messages import Message, ToolCall


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with endpoint() as told:
        yield told


def opened(url: str, model: str | None = None) -> EndpointBackend:
    """The backend as it is known before any question; its connections are closed."""
    with EventLoop() as loop:
        backend = EndpointSource(url, loop, str, str, {}).open(model)
        loop.run(backend.close())
        return backend


def test_nothing_is_sent_that_nobody_said(server: Endpoint) -> None:
    ask(server.answers(stream(delta(content="Hi"), STOP)).url)
    assert server.last == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "authorization" not in server.asked[-1].headers


def test_everything_that_was_said_is_sent_but_for_reasoning(server: Endpoint) -> None:
    weather = ToolCall("get_weather", {"city": "Zürich"}, id="c1")
    messages = [
        Message("user", "Weather? \ud83d"),
        Message("assistant", None, (weather,), reasoning="I should look."),
        Message("tool", "sunny", tool_call_id="c1", name="get_weather"),
        Message("assistant", None, reasoning="cut off"),
    ]
    schema = {"type": "object"}
    options = ChatOptions("Be brief.", schema=schema, sampling={"temperature": 0, "top_k": 4, "penalty_last_n": 9},
                    max_tokens=7, stops=("x", "y"), think=False, think_budget=5)  # fmt: skip
    ask(server.answers(stream(delta(content="Hi"), STOP)).url, messages=messages, tools=[TOOL], options=options)
    function = {"name": "get_weather", "arguments": '{"city": "Zürich"}'}
    sent = server.last
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather? \ufffd"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "get_weather"},
        {"role": "assistant", "content": ""},
    ]
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert sent["tools"] == [TOOL]
    rest = {key: sent[key] for key in ("temperature", "top_k", "repeat_last_n", "max_tokens", "stop")}
    assert rest == {"temperature": 0, "top_k": 4, "repeat_last_n": 9, "max_tokens": 7, "stop": ["x", "y"]}
    assert sent["chat_template_kwargs"] == {"thinking": False, "enable_thinking": False}
    assert "thinking_budget_tokens" not in sent


@pytest.mark.parametrize(
    ("owner", "sent"),
    [
        ("hermes-llm", {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}, "thinking_budget_tokens": 9}),
        ("llamacpp", {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}, "thinking_budget_tokens": 9}),
        ("vllm", {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}, "thinking_token_budget": 9,
                  "repetition_penalty": 1.1}),
    ],
)  # fmt: skip
def test_each_server_is_asked_in_its_own_words(server: Endpoint, owner: str, sent: dict[str, Any]) -> None:
    server.lists({"id": "m", "owned_by": owner}).answers(stream(delta(content="Hi"), STOP))
    ask(server.url, options=ChatOptions(think=True, think_budget=9, sampling={"repeat_penalty": 1.1}))
    assert {key: server.last[key] for key in sent} == sent


def test_what_a_server_cannot_do_is_said(server: Endpoint) -> None:
    server.lists({"id": "m", "owned_by": "library"})
    budget = ask(server.url, options=ChatOptions(think_budget=9)).error
    assert isinstance(budget, UsageError)
    assert "--think-budget" in budget.message
    shift = ask(server.url, options=ChatOptions(shift=True)).error
    assert isinstance(shift, UsageError)
    assert "--context-shift" in shift.message
    ask(server.answers(stream(delta(content="Hi"), STOP)).url, options=ChatOptions(think=False))
    assert server.last["reasoning_effort"] == "none"


# Which model.


def test_the_only_model_is_taken_and_one_of_several_is_chosen(server: Endpoint) -> None:
    assert opened(server.url).name == "m"
    server.lists(
        {"id": "hermes-3-8b"}, {"id": "hermes-4-14b", "aliases": ["main"]}, {"id": "org/x"}, {"id": "a:latest"}
    )
    with pytest.raises(UsageError, match="has 4 models: hermes-3-8b, hermes-4-14b"):
        opened(server.url)
    names = {"hermes-4-14b": "hermes-4-14b", "main": "main", "HERMES-3-8B": "hermes-3-8b", "org/x:free": "org/x:free",
             "a": "a:latest"}  # fmt: skip
    assert {wanted: opened(server.url, wanted).name for wanted in names} == names
    with pytest.raises(NotFoundError, match="no model hermes-4-41b") as caught:
        opened(server.url, "hermes-4-41b")
    assert "did you mean hermes-4-14b" in caught.value.hint
    server.lists({"id": "one", "context_length": 1, "aliases": ["*"]}, {"id": "two", "context_length": 2})
    assert [opened(server.url, wanted).context_length for wanted in ("one", "two", "gpt-4o")] == [1, 2, 1]
    assert opened(server.url, "gpt-4o").name == "gpt-4o"


def test_a_long_list_is_not_shown_whole(server: Endpoint) -> None:
    server.lists(*({"id": f"m{number}"} for number in range(300)))
    with pytest.raises(UsageError, match=r"has 300 models: m0, .*, m19 and 280 more\."):
        opened(server.url)


def test_a_server_that_lists_nothing_needs_a_name(server: Endpoint) -> None:
    server.lists()
    with pytest.raises(NotFoundError, match="lists no models"):
        opened(server.url)
    server.routes["/v1/models"] = refusal(404, "Not Found")
    with pytest.raises(NotFoundError, match="no OpenAI-compatible API"):
        opened(server.url)
    assert opened(server.url, "any").name == "any"


@pytest.mark.parametrize(
    ("model", "context", "reasons", "tools"),
    [
        ({"context_length": 8, "capabilities": {"reasoning": True, "tools": False, "json": True}}, 8, True, False),
        ({"max_model_len": 9, "owned_by": "vllm"}, 9, None, None),
        ({"meta": {"n_ctx": 10, "n_ctx_train": 99}, "owned_by": "llamacpp"}, 10, None, None),
        ({"meta": {"n_ctx_train": 99}, "owned_by": "llamacpp"}, 11, None, None),  # of /props
        ({"context_length": None, "top_provider": {"context_length": 12}}, 12, None, None),
        ({"context_length": 13, "supported_parameters": ["tools", "seed"]}, 13, False, True),
        ({"owned_by": "library"}, None, None, None),
        (
            {"context_length": "14", "meta": 3, "capabilities": {"reasoning": None}, "owned_by": "vllm"},
            None,
            None,
            None,
        ),
    ],
)
def test_what_a_server_says_of_its_model(
    server: Endpoint, model: dict[str, Any], context: int | None, reasons: object, tools: object
) -> None:
    server.routes["/props"] = of_json({"default_generation_settings": {"n_ctx": 11}})
    backend = opened(server.lists({"id": "m", **model}).url)
    assert (backend.context_length, backend.supports_reasoning, backend.supports_tools) == (context, reasons, tools)


@pytest.mark.parametrize(
    "reply", [of_json([]), of_json({"models": 3}), of_json("x"), of_json({"data": [1, {"id": 2}]})]
)
def test_a_list_that_is_none_is_no_list(server: Endpoint, reply: Reply) -> None:
    server.routes["/v1/models"] = reply
    with pytest.raises(NotFoundError, match="lists no models"):
        opened(server.url)


def test_a_key_in_the_clear_is_said() -> None:
    says: list[str] = []
    with EventLoop() as loop:
        EndpointSource("http://llm.example", loop, says.append, says.append, {"HERMES_LLM_ENDPOINT_KEY": "k"})
    assert says == [
        "the key in HERMES_LLM_ENDPOINT_KEY goes to llm.example unencrypted: others on the way can read it."
    ]


def test_its_models_can_be_listed_and_changed(server: Endpoint) -> None:
    server.lists({"id": "a"}, {"id": "b"})
    with EventLoop() as loop:
        source = EndpointSource(server.url, loop, str, str, {})
        assert source.names() == ["a", "b"]
        with source.opening("b") as finish:
            backend: ChatBackend = finish()
        assert backend.name == "b"
        assert backend.details == {"context_length": None, "endpoint": f"{server.url}/v1"}
        loop.run(backend.unload())
        loop.run(backend.close())


def counted(
    url: str, messages: list[Message], options: ChatOptions, environ: dict[str, str] | None = None
) -> int | None:
    with EventLoop() as loop:
        backend = EndpointSource(url, loop, str, str, environ or {}).open(None)
        try:
            return loop.run(backend.count_tokens(messages, [TOOL], options))
        finally:
            loop.run(backend.close())


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_tokens_are_counted_as_vllm_counts_them(server: Endpoint, owner: str) -> None:
    server.lists({"id": "m", "owned_by": owner})
    server.routes["/tokenize"] = of_json({"count": 31, "max_model_len": 99, "tokens": []})
    assert counted(server.url, HI, ChatOptions("Be brief.", think=True)) == 31
    assert server.last == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "tools": [TOOL],
        "chat_template_kwargs": {"thinking": True, "enable_thinking": True},
    }


@pytest.mark.parametrize(
    ("owner", "asked", "sent"),
    [("vllm", 5000, 993), ("sglang", 5000, 993), ("vllm", 90, 90), ("llamacpp", 5000, 5000)],
)
def test_an_answer_may_be_as_long_as_the_context_has_room(server: Endpoint, owner: str, asked: int, sent: int) -> None:
    server.lists({"id": "m", "owned_by": owner, "max_model_len": 1024})
    server.routes["/tokenize"] = of_json({"count": 31, "max_model_len": 1024, "tokens": []})
    server.answers(stream(delta(content="Hi"), STOP))
    ask(server.url, options=ChatOptions(max_tokens=asked))
    assert server.last["max_tokens"] == sent


@pytest.mark.parametrize("owner", ["vllm", "llamacpp", "library"])
def test_where_nobody_counts_there_is_no_number(server: Endpoint, owner: str) -> None:
    server.lists({"id": "m", "owned_by": owner})
    assert counted(server.url, HI, ChatOptions()) is None


# This program's own server.


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with hermes_serve("demo", "--api-key", "sk-test", cwd=Path(tmp_path_factory.mktemp("serving"))) as running:
        yield f"127.0.0.1:{running.port}"


OURS = {"HERMES_LLM_ENDPOINT_KEY": "sk-test"}
GREEDY = {"temperature": 0.0}


def test_our_server_answers_and_counts_and_calls(serving: str) -> None:
    weather = [Message("user", "What is the weather in Paris?")]
    heard = ask(
        serving, environ=OURS, tools=[TOOL], messages=weather, options=ChatOptions(sampling=GREEDY, max_tokens=60)
    )
    assert heard.calls == [("get_weather", {"city": "Paris"})]
    assert heard.done.reason == "tool_calls"
    assert counted(serving, weather, ChatOptions(), OURS) == heard.done.prompt_tokens


def test_our_server_reasons_within_a_budget_and_writes_what_a_schema_says(serving: str) -> None:
    heard = ask(serving, environ=OURS, options=ChatOptions(sampling=GREEDY, think=True, think_budget=4, max_tokens=40))
    assert heard.thought
    assert 0 < heard.done.reasoning_tokens <= 4 + 2  # its tags
    schema = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"], "additionalProperties": False}
    assert ask(serving, environ=OURS, options=ChatOptions(schema=schema)).text.replace(" ", "") == '{"n":7}'


def test_our_server_refuses_in_words_that_are_understood(serving: str) -> None:
    long = ask(serving, environ=OURS, messages=[Message("user", "word " * 2000)])
    assert isinstance(long.error, ContextFullError)
    assert "the context length is 1,024 tokens" in long.error.message
    locked = ask(serving)
    assert isinstance(locked.error, UsageError)
    assert "export HERMES_LLM_ENDPOINT_KEY" in locked.error.hint
    wrong = ask(serving, "hermes-9", environ=OURS)
    assert isinstance(wrong.error, NotFoundError)
    assert "it has demo" in wrong.error.message
