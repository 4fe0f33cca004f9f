"""Addresses as they are typed, and which key goes where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.chat.endpoint.address import OWN_KEY, SERVICES, read_address
from hermes_cli.chat.endpoint.http_client import EndpointError, parse_retry_after
from hermes_cli.errors import ContextFullError, HermesError, NetworkError, NotFoundError, UsageError

OTHER = read_address("https://llm.example", {})


@pytest.mark.parametrize(
    ("typed", "base", "root"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/v1/chat/completions", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080"),
        ("localhost:8080", "http://localhost:8080/v1", "http://localhost:8080"),
        (" LOCALHOST ", "http://localhost/v1", "http://localhost"),
        ("[::1]:8080/v1", "http://[::1]:8080/v1", "http://[::1]:8080"),
        ("127.9.9.9:1", "http://127.9.9.9:1/v1", "http://127.9.9.9:1"),
        ("10.0.0.5:8000", "https://10.0.0.5:8000/v1", "https://10.0.0.5:8000"),
        ("openrouter.ai", "https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("inference-api.nousresearch.com", "https://inference-api.nousresearch.com/v1", None),
        ("https://llm.example:443/v1beta/openai/", "https://llm.example/v1beta/openai", None),
        ("https://llm.example/team/a", "https://llm.example/team/a/v1", "https://llm.example/team/a"),
        ("https://localhost.example", "https://localhost.example/v1", None),
    ],
)
def test_addresses_as_they_are_typed(typed: str, base: str, root: str | None) -> None:
    address = read_address(typed, {})
    assert address.base == base
    assert root is None or address.root == root


@pytest.mark.parametrize(
    "typed",
    [
        "", "http://", ":8080", "ftp://host/v1", "http://host:port", "http://host:99999", "http://host:0", "http://[::1",
        "http://a b/v1", "http://host/v1?x=1", "http://host/v1#x", "file:///etc/passwd", "http://host\\other",
    ],
)  # fmt: skip
def test_what_is_no_address_is_said_to_be_none(typed: str) -> None:
    with pytest.raises(UsageError, match="is not an address of an API"):
        read_address(typed, {})


def test_a_key_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        read_address("https://me:sk-secret@llm.example", {})
    assert "sk-secret" not in caught.value.message + caught.value.hint
    assert "HERMES_LLM_ENDPOINT_KEY" in caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    try:
        address = read_address(text, {})
    except UsageError:
        return
    assert address.base.startswith(("http://", "https://"))
    assert read_address(address.base, {}).base == address.base


KEYS = {"OPENROUTER_API_KEY": "or", "NOUS_API_KEY": "nous", "OPENAI_API_KEY": "oa"}


@pytest.mark.parametrize(
    ("typed", "environ", "key"),
    [
        ("openrouter.ai", KEYS, "or"),
        ("https://inference-api.nousresearch.com/v1", KEYS, "nous"),
        ("https://api.openai.com/v1", KEYS, "oa"),
        ("https://API.openai.com./v1", KEYS, "oa"),
        ("https://openrouter.ai.evil.example/api/v1", KEYS, None),
        ("https://evil.example/openrouter.ai/api/v1", KEYS, None),
        ("http://127.0.0.1:8080", KEYS, None),
        ("http://127.0.0.1:8080", {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, "oa"),
        ("http://127.0.0.1:8081", {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, None),
        ("https://api.openai.com", {**KEYS, "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, None),
        ("http://api.openai.com", {**KEYS, "OPENAI_BASE_URL": "https://api.openai.com/v1"}, None),
        ("openrouter.ai", {**KEYS, "OPENAI_BASE_URL": "https://openrouter.ai/api/v1"}, "or"),
        ("openrouter.ai", {**KEYS, "HERMES_LLM_ENDPOINT_KEY": " mine\n"}, "mine"),
        ("llm.example", {"HERMES_LLM_ENDPOINT_KEY": "mine"}, "mine"),
        ("llm.example", {"HERMES_LLM_ENDPOINT_KEY": "  "}, None),
        ("llm.example", {"HERMES_LLM_API_KEY": "of our server"}, None),
    ],
)
def test_a_key_goes_only_where_it_is_meant_for(typed: str, environ: dict[str, str], key: str | None) -> None:
    assert read_address(typed, environ).key == key


def test_what_cannot_be_a_key_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        read_address("llm.example", {"HERMES_LLM_ENDPOINT_KEY": "sk-one\nsk-two"})
    assert "sk-" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("typed", "exposed"),
    [
        ("http://llm.example", True),
        ("https://llm.example", False),
        ("http://localhost", False),
        ("http://[::1]", False),
    ],
)
def test_a_key_in_the_clear_is_noticed(typed: str, *, exposed: bool) -> None:
    assert read_address(typed, {"HERMES_LLM_ENDPOINT_KEY": "k"}).exposes_key is exposed
    assert not read_address(typed, {}).exposes_key


def failure(status: int, message: str, **error: object) -> EndpointError:
    return EndpointError(status, message, {"error": {"message": message, **error}})


# As the servers word them: vLLM (two), this program's, OpenAI, OpenRouter, llama.cpp (new and old), older vLLM.
VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested 1 output tokens and your prompt contains "
    "at least 5000 input tokens, for a total of at least 5001 tokens."
)
OPENROUTER = (
    "This endpoint's maximum context length is 4096 tokens. However, you requested about 5100 tokens (5000 of text input, "
    "100 in the output)."
)


@pytest.mark.parametrize(
    "refused",
    [
        failure(400, VLLM),
        failure(400, "This model's maximum context length is 4096 tokens and your request has 5000 input tokens"),
        failure(400, "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."),
        failure(400, OPENROUTER),
        failure(400, "This model's maximum context length is 4096 tokens. However, you requested 5001 tokens (5000 in the "
             "messages, 1 in the completion)."),
        failure(400, "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it"),
        failure(400, "the request exceeds the available context size", type="exceed_context_size_error",
             n_prompt_tokens=5000, n_ctx=4096),
        failure(500, "request (5,000 tokens) exceeds the available context size (4,096 tokens)"),
        failure(400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        failure(400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
        failure(400, "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input tokens."),
    ],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_told_with_both_numbers(refused: EndpointError) -> None:
    error = refused.as_user_error(OTHER, "m")
    assert isinstance(error, ContextFullError)
    assert error.message == "the prompt has 5,000 tokens, the context length is 4,096 tokens."


SGLANG_ANSWER = (
    "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 4097 tokens: "
    "96 tokens from the input messages and 4001 tokens for the completion. Please reduce the number of tokens in the input "
    "messages or the completion to fit within the limit."
)


@pytest.mark.parametrize(
    "said",
    [
        "'max_tokens' is too large: 4000. The maximum context length is 4096 tokens and your request has 96 input tokens",
        SGLANG_ANSWER,
    ],
)
def test_too_many_tokens_asked_for_is_told_as_that(said: str) -> None:
    error = failure(400, said).as_user_error(OTHER, "m", 4001)
    assert isinstance(error, ContextFullError)
    assert "96 tokens and the answer may have 4,001, the context length is 4,096" in error.message
    assert "4,000" in error.hint


def test_too_long_without_numbers_says_what_the_server_says() -> None:
    error = failure(400, "too many", code="context_length_exceeded").as_user_error(OTHER)
    assert isinstance(error, ContextFullError)
    assert "too many" in error.message


@pytest.mark.parametrize(
    ("refused", "kind", "said"),
    [
        (failure(400, "temperature must be positive"), UsageError, "temperature must be positive"),
        (failure(401, "no key"), UsageError, "wants a key"),
        (failure(403, "flagged"), UsageError, "does not allow this: flagged"),
        (failure(404, "The model `m` does not exist"), NotFoundError, "has no model m"),
        (failure(404, "Not Found"), NotFoundError, "no OpenAI-compatible API at https://llm.example/v1"),
        (failure(402, "no credits"), NetworkError, "no credits"),
        (failure(599, "odd"), NetworkError, "status 599: odd"),
    ],
)
def test_refusals_are_told_as_what_they_are(refused: EndpointError, kind: type[HermesError], said: str) -> None:
    error = refused.as_user_error(OTHER, "m")
    assert type(error) is kind
    assert said in error.message


def test_a_key_that_is_not_accepted_is_named_by_its_variable() -> None:
    address = read_address("openrouter.ai", {"OPENROUTER_API_KEY": "sk-secret"})
    error = failure(401, "User not found.").as_user_error(address)
    assert "OPENROUTER_API_KEY" in error.message
    assert "sk-secret" not in error.message + error.hint
    assert "export OPENROUTER_API_KEY=" in failure(401, "x").as_user_error(read_address("openrouter.ai", {})).hint


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after("3") == 3
    assert parse_retry_after("-1") == 0
    soon = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None
    assert 55 < soon <= 60
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_the_page_tells_every_variable_and_where_it_goes() -> None:
    page = (REPOSITORY / "docs" / "endpoints.md").read_text(encoding="utf-8")
    rows = {cells[1].strip("` "): cells[2] for line in page.splitlines() if len(cells := line.split("|")) == 4}
    assert OWN_KEY in rows
    for host, service in SERVICES.items():
        assert f"`{host}`" in rows[service.variable]
