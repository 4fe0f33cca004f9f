"""Asks a real server for anything that its OpenAPI document allows, and for anything else; holds the answers to it.

    python tools/server_fuzz.py                     # 6,000 requests, a few minutes
    python tools/server_fuzz.py --requests 300      # a short look

A third of the requests conform to the document, a third do not (schemathesis makes both), and a third are real requests
(server_fuzz_examples.py) in which something was put in another's place. One comes after the other, so nothing may end
in a 5xx: there is always room in the queue, and the model is loaded or soon will be. Statuses, types and bodies of all
answers have to be in the document, no stream may end by a fault of the server, and none may be in its log.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from server_fuzz_examples import EXAMPLES, edited

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REQUESTS, ROUND = 6000, 16  # at all, and of each kind to each route in one go
PATIENCE = 60.0  # seconds; an answer that takes longer hangs
LONGEST = 4  # tokens of an answer: what is looked at here is not how the model goes on
# Fields that limit an answer, the one that counts first.
LIMITS = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens", "n_predict"),
    "/v1/completions": ("max_tokens", "n_predict"),
    "/v1/responses": ("max_output_tokens",),
    "/v1/messages": ("max_tokens",),
}
FAULTS = ('"type":"server_error"', '"type":"api_error"', '"code":"server_error"')  # in streams, too


@dataclass
class Found:
    """What came of it.

    Attributes:
        statuses: how often each route answered with each status.
        faults: what was wrong, and the first request that led to it.
        slowest: seconds, and the request.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")


@dataclass(frozen=True)
class Service:
    """A server at work.

    Attributes:
        address: without `/v1`.
        process: its number.
        log: of requests, and of what went wrong.
    """

    address: str
    process: int
    log: Path


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Service]:
    """`hermes serve demo` as a process of its own, whose log cannot fill any pipe."""
    log = folder / "log"
    command = [sys.executable, "-m", "hermes_cli", "serve", "demo", "--port", "0", "--threads", "1", *flags]
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, cwd=folder, text=True) as server,
    ):
        assert server.stdout  # noqa: S101 - says the line above
        try:
            ready = next((line for line in server.stdout if "OPENAI_BASE_URL=" in line), None)
            if ready is None:
                raise SystemExit(log.read_text())
            address = ready.partition("OPENAI_BASE_URL=")[2].split()[0].removesuffix("/v1")
            yield Service(address, server.pid, log)
        finally:
            server.terminate()


def fuzz(address: str, most: int, start: int = 0, generated: int = ROUND) -> Found:
    """Send so many requests, or a few more.

    Args:
        address: of the server, without `/v1`.
        most: requests.
        start: of the random numbers; the same gives the same requests, as long as the document is the same.
        generated: by schemathesis, of each kind to each route in one go; making one takes longer than all the rest.
    """
    found = Found()
    with requests.Session() as session:
        document = session.get(f"{address}/openapi.json", timeout=PATIENCE).json()
        operations = [one.ok() for one in schemathesis.openapi.from_dict(document).get_all_operations()]  # type: ignore[union-attr]  # raises where it is not
        while found.statuses.total() < most:
            for operation in operations:
                _ask(found, session, address, operation, start, generated)
            start += 1
    return found


def _ask(
    found: Found,
    session: requests.Session,
    address: str,
    operation: Any,  # noqa: ANN401 - schemathesis'
    start: int,
    generated: int,
) -> None:
    """Requests of all kinds to one route."""
    if "{" in operation.path:
        _send(found, session, address, operation.Case(path_parameters=_there(session, address)))
    ways = [(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), generated)]
    if operation.body or operation.query:  # any text may stand in a path
        ways.append((operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), generated))
    if operation.path in EXAMPLES:
        bodies = edited(operation.path)
        ways.append((bodies.map(lambda body: operation.Case(body=body, media_type="application/json")), ROUND))
    for cases, examples in ways:

        @seed(start)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def one(case: Any) -> None:  # noqa: ANN401 - as above
            _send(found, session, address, case)

        one()


def _there(session: requests.Session, address: str) -> dict[str, str]:
    """Names in paths of what there is."""
    body: dict[str, Any] = {"input": "Hi", "max_output_tokens": LONGEST}
    kept = session.post(f"{address}/v1/responses", json=body, timeout=PATIENCE).json()
    return {"model": kept["model"], "response_id": kept["id"]}


def _send(found: Found, session: requests.Session, address: str, case: Any) -> None:  # noqa: ANN401 - as above
    _shorten(case.path, case.body)
    label, said = case.operation.label, f"{case.formatted_path} {_shown(case.body)}"
    started = time.monotonic()
    try:
        answer = _answer(session, address, case)
    except requests.RequestException as error:
        found.faults.setdefault(f"{label}: {type(error).__name__}", said)
        return
    found.slowest = max(found.slowest, (time.monotonic() - started, said))
    found.statuses[label, answer.status_code] += 1
    for fault in _faults(case, answer):
        found.faults.setdefault(f"{label} {answer.status_code}: {fault}", f"{said}\n  {answer.text[:500]}")


def _answer(session: requests.Session, address: str, case: Any) -> Any:  # noqa: ANN401 - as above
    try:
        return case.call(base_url=address, session=session, timeout=PATIENCE)
    except requests.exceptions.InvalidJSONError:  # it has NaN, which many clients send
        data, headers = json.dumps(case.body), {"Content-Type": "application/json"}
        return session.post(f"{address}{case.formatted_path}", data=data, headers=headers, timeout=PATIENCE)


def _faults(case: Any, answer: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as group:
        yield from (f"{one.title}: {one.message[:200]}" for one in group.exceptions)
    yield from (fault for fault in FAULTS if fault in answer.text)


def _shorten(path: str, body: object) -> None:
    """Answers are as short as the request allows; wrong limits stay wrong."""
    names = LIMITS.get(path, ())
    if not names or not isinstance(body, dict):
        return
    name = next((name for name in names if body.get(name) is not None), names[0])
    given = body.get(name)
    if given is None or given == -1 or (type(given) is int and given > LONGEST):
        body[name] = LONGEST


def _shown(body: object) -> str:
    return json.dumps(body, default=repr)[:2000]


def main() -> None:
    """Send requests, and print a table of the answers and what was wrong with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))  # noqa: S311 - nothing to guess
    args = parser.parse_args()
    print(f"--seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        found = fuzz(server.address, args.requests, args.seed)
        tracebacks = server.log.read_text(errors="replace").count("Traceback")
    for (label, status), times in sorted(found.statuses.items()):
        print(f"{label:40} {status} {times:6,}")
    print(f"{found.statuses.total():,} requests, the slowest took {found.slowest[0]:.1f} s: {found.slowest[1][:300]}")
    print(f"{len(found.faults)} faults, {tracebacks} tracebacks in the log")
    for fault, request in found.faults.items():
        print(f"- {fault}\n  {request}")
    sys.exit(bool(found.faults or tracebacks))


if __name__ == "__main__":
    main()
