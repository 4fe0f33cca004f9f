"""Entries of serve.yaml with `upstream`: a model at a service, here a server of this machine, behind `hermes serve`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG, RunHermes, eventually
from endpoint_rig import STOP, TOOL, Endpoint, Reply, delta, endpoint, event, stream
from openai import APIStatusError, OpenAI, RateLimitError
from server_rig import hermes_serve

from hermes_cli.errors import ExitCode

ENTRY = "  - {{model: m, name: far, upstream: '{url}', spend_limit: 0.01, price: [1.0, 3.0]}}"


def used(prompt: int, completion: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


def answer(text: str, prompt: int = 10, completion: int = 5) -> Reply:
    return stream(delta(content=text), delta("stop"), used(prompt, completion), STOP)


@pytest.fixture
def service() -> Iterator[Endpoint]:
    with endpoint() as told:
        yield told


@pytest.fixture
def client(service: Endpoint, tmp_path: Path) -> Iterator[OpenAI]:
    """Of a server with the demo model, and one that is at the service."""
    entry = ENTRY.format(url=service.url)
    (tmp_path / "serve.yaml").write_text(f"models:\n  - demo\n{entry}\n")
    with hermes_serve(cwd=tmp_path) as running:
        assert "far\n" in running.banner
        assert "at 127.0.0.1, not on this machine" in running.banner
        yield OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0)


def completions(client: OpenAI) -> Any:  # noqa: ANN401 - with any fields
    return client.chat.completions.create


def ask(client: OpenAI, model: str = "far", **more: Any) -> str | None:  # noqa: ANN401 - as above
    messages = [{"role": "user", "content": "Who are you?"}]
    reply = completions(client)(model=model, messages=messages, **more)
    text: str | None = reply.choices[0].message.content
    return text


def test_only_what_is_asked_of_it_leaves_the_machine_and_it_is_marked(service: Endpoint, client: OpenAI) -> None:
    owners = {model.id: model.owned_by for model in client.models.list().data}
    assert owners == {"demo": "hermes-llm", "far": "127.0.0.1"}
    assert (ask(client, "demo") or "").startswith("I am the Hermes demo")
    assert not service.asked
    service.answers(answer("From afar."))
    assert ask(client, temperature=0.5, max_tokens=7) == "From afar."
    sent = service.last
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.5, 7)
    assert sent["messages"] == [{"role": "user", "content": "Who are you?"}]


def test_tools_schemas_and_streams_go_through(service: Endpoint, client: OpenAI) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    service.answers(stream(delta(tool_calls=[call]), delta("tool_calls"), used(1, 1), STOP))
    messages = [{"role": "user", "content": "Weather in Rome?"}]
    reply = completions(client)(model="far", messages=messages, tools=[TOOL])
    assert reply.choices[0].message.tool_calls[0].function.name == "get_weather"
    assert reply.choices[0].finish_reason == "tool_calls"
    service.answers(answer('{"a": 1}'))
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    assert ask(client, response_format=schema) == '{"a": 1}'
    assert service.last["response_format"]["json_schema"]["schema"] == {"type": "object"}
    service.answers(answer("one"))
    chunks = completions(client)(model="far", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one"


@pytest.mark.parametrize(
    "more",
    [{"logprobs": True}, {"tools": [TOOL], "tool_choice": "required"}, {"extra_body": {"grammar": 'root ::= "a"'}}],
)
def test_what_the_service_is_not_asked_for_is_refused(client: OpenAI, service: Endpoint, more: dict[str, Any]) -> None:
    with pytest.raises(APIStatusError) as caught:
        ask(client, **more)
    assert caught.value.status_code == 400
    assert not [asked for asked in service.asked if asked.method == "POST"]


def test_plain_completions_are_refused(client: OpenAI) -> None:
    with pytest.raises(APIStatusError, match="takes messages and no plain text"):
        client.completions.create(model="far", prompt="Once")


def test_the_limit_ends_it(client: OpenAI, service: Endpoint) -> None:
    service.answers(answer("dear", 4000, 2000))  # 0.004 + 0.006 USD
    assert ask(client) == "dear"
    with pytest.raises(APIStatusError, match=r"far has used up its limit of \$0.01"):
        ask(client)
    assert ask(client, "demo")


def test_requests_in_flight_cannot_overrun_the_limit(client: OpenAI, service: Endpoint) -> None:
    """Each keeps the most that it may cost, is cut there, and gives back what it did not cost."""
    service.answers(stream(delta(content="slow"), end="open"))
    first = completions(client)(model="far", messages=[{"role": "user", "content": "Go on."}], stream=True)
    assert next(chunk for chunk in first if chunk.choices[0].delta.content)
    assert 3000 < service.last["max_tokens"] < 3334  # 0.01 USD at 3 USD for a million
    with pytest.raises(APIStatusError, match=r"is kept for requests that run") as caught:
        ask(client)
    assert caught.value.status_code == 429
    first.close()
    assert service.left.wait(HANG)
    service.answers(answer("dear", 4000, 1900))
    eventually(lambda: _is_answered(client))
    service.answers(answer("less", 10, 10))
    ask(client, max_tokens=1000)
    assert 0 < service.last["max_tokens"] < 100  # 0.0003 USD were left


def _is_answered(client: OpenAI) -> bool:
    try:
        return ask(client) == "dear"
    except RateLimitError:  # the server has not noticed yet
        return False


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{model: hermes-4:70b, upstream: openrouter}", "there is no key for OpenRouter"),
        ("{model: m, upstream: 'http://127.0.0.1:9'}", "does not say what it may cost"),
        ("{model: m, upstream: 'http://127.0.0.1:9', spend_limit: 1}", "price: [1.00, 3.00]"),
        ("{model: m, upstream: 'http://127.0.0.1:9', spend_limit: -1}", "spend_limit"),
    ],
)
def test_an_entry_that_does_not_say_enough(hermes: RunHermes, tmp_path: Path, entry: str, said: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(f"models:\n  - {entry}\n")
    done = hermes("serve", "--config", str(file), "--port", "0")
    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr
