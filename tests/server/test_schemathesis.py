"""No request makes a fault of the server, and its OpenAPI document is true: tools/server_fuzz.py, for a few seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_rig import HERMES_4, House, house
from server_fuzz_examples import EXAMPLES
from server_rig import Running, hermes_serve, log_of, offer

NUMBERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house(offer("demo", known=HERMES_4)) as one:
        yield one


@pytest.mark.parametrize(("requests", "generated"), [(60, 2), pytest.param(1_000, 16, marks=pytest.mark.long)])
def test_whatever_is_sent_the_answer_is_in_the_document_and_no_5xx(
    tmp_path: Path, requests: int, generated: int
) -> None:
    """A few more are sent, since each route gets as many."""
    from server_fuzz import fuzz  # noqa: PLC0415 - half a second, not in each process that collects tests

    with hermes_serve("demo", cwd=tmp_path) as server:
        with log_of(server) as log:
            found = fuzz(f"http://127.0.0.1:{server.port}", requests, generated=generated)
        said = log.result()
    assert not found.faults, "\n".join(f"{fault}\n  {request}" for fault, request in found.faults.items())
    assert "Traceback" not in said
    assert found.statuses.total() >= requests
    for path in EXAMPLES:
        answers = {status for label, status in found.statuses if label == f"POST {path}"}
        assert {200, 400} <= answers, path
    assert ("GET /v1/responses/{response_id}", 200) in found.statuses
    assert ("DELETE /v1/responses/{response_id}", 200) in found.statuses


def test_real_requests_are_real(rig: House) -> None:
    """But for those to Responses that go on from one that is not there."""
    for path, bodies in EXAMPLES.items():
        for body in bodies:
            answer = rig.post(path, body)
            assert answer.status == 200 or "previous_response_id" in body, (path, body, answer.body)


# What was found: values that no set can hold, in the place of one of a few texts, and numbers that no float can hold


@pytest.mark.parametrize("odd", [[], {}, ["user"], {"a": 1}, 10**400, -(10**400), None, True, 0.5])
@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/messages", EXAMPLES["/v1/messages"][0], ("messages", 0, "role")),
        ("/v1/messages", EXAMPLES["/v1/messages"][0], ("messages", 0, "content", 0, "type")),
        ("/v1/messages", EXAMPLES["/v1/messages"][1], ("tool_choice", "type")),
        ("/v1/responses", EXAMPLES["/v1/responses"][0], ("input", 4, "content", 0, "type")),
        ("/v1/responses", EXAMPLES["/v1/responses"][0], ("input", 0, "type")),
        ("/v1/responses", EXAMPLES["/v1/responses"][1], ("reasoning", "summary")),
        ("/v1/chat/completions", EXAMPLES["/v1/chat/completions"][7], ("tool_choice", "allowed_tools", "mode")),
        ("/v1/chat/completions", EXAMPLES["/v1/chat/completions"][3], ("keep_alive",)),
        ("/v1/chat/completions", EXAMPLES["/v1/chat/completions"][4], ("thinking", "type")),
        ("/v1/chat/completions", EXAMPLES["/v1/chat/completions"][1], ("response_format", "type")),
    ],
)
def test_a_value_of_another_type_is_no_bug(rig: House, path: str, body: Any, place: tuple[Any, ...], odd: Any) -> None:  # noqa: ANN401 - JSON
    assert rig.post(path, put(body, place, odd)).status in {200, 400}


def put(body: Any, place: tuple[Any, ...], value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same with another value in a place."""
    if not place:
        return value
    first, *rest = place
    copy = dict(body) if isinstance(body, dict) else [*body]
    copy[first] = put(body[first], tuple(rest), value)
    return copy


# The ranges of numbers


def ranges(running: Running) -> Iterator[tuple[str, str, float, float, bool]]:
    """Route, field, least and most, as the document says; and whether it is a whole number."""
    document = running.get("/openapi.json").json
    for path in NUMBERS:
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        fields = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]["properties"]
        for name, field in fields.items():
            for one in field.get("anyOf", [field]):
                if "minimum" in one and "maximum" in one:
                    yield path, name, one["minimum"], one["maximum"], one["type"] == "integer"


def test_numbers_are_taken_as_far_as_the_document_says(rig: House) -> None:
    found = set()
    for path, name, least, most, whole in ranges(rig.running):
        found.add((path, name))
        body = dict(next(one for one in EXAMPLES[path] if "previous_response_id" not in one))
        body = {key: value for key, value in body.items() if key in {"messages", "prompt", "input", "max_tokens"}}
        body |= {"logprobs": True} if path == "/v1/chat/completions" else {}
        beyond = 1 if whole else math.ulp(most)
        for value, status in ((least, 200), (most, 200), (least - beyond, 400), (most + beyond, 400)):
            answer = rig.post(path, {**body, name: value})
            assert answer.status == status, (path, name, value, answer.body)
            assert status == 200 or name in answer.body.decode(), (path, name, answer.body)
    for path in NUMBERS:
        assert {name for way, name in found if way == path} >= {"temperature", "top_p", "top_k", "min_p"}, path
