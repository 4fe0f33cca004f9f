"""Hermes Agent, unmodified, does tasks with a tool against our server; a script stands in for the weights.

    python3.11 -m venv agent && agent/bin/pip install hermes-agent==0.19.0
    python tools/agent_rehearsal.py agent/bin/hermes

The agent, its shell, HTTP, the model's prompt format and the parser of calls are real. The engine behind them is that
of the tests: it takes every byte for a token and says what a good model would say. In the second scene the shell prints
so much that the server refuses a request, and the agent has to make room. Prints what was asked and answered, and what
was checked (docs/clients.md has it); the exit code is 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]

from conftest import clean_environment  # noqa: E402 - found by the line above
from fake_engine import LOADED, FakeEngine  # noqa: E402 - as above
from server_rig import offer, served  # noqa: E402 - as above

from hermes_cli.catalog.load import shipped_catalogue  # noqa: E402 - as above
from hermes_cli.server.served_models import AGENT_CONTEXT  # noqa: E402 - as above
from hermes_cli.server.settings import ServerSettings  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import CatalogModel
    from hermes_cli.engine.request import GenerationRequest

TIMEOUT = 300  # seconds; the agent alone starts in 3 to 18
RESPONSE = re.compile(r"<tool_response>\s*(\{.*?\})\s*</tool_response>", re.DOTALL)
SUMMARY = "The shell counted to 1,200, and then a little further each time."
OTHER_SERVERS = {("GET", path): 404 for path in ("/api/v1/models", "/api/tags", "/v1/props")}
OURS = {("GET", "/props"): 200, ("GET", "/v1/models"): 200}
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Scene:
    """A task, the commands that solve it, and how many requests have to be refused on the way."""

    title: str
    task: str
    commands: tuple[str, ...]
    answer: str
    refused: int = 0


COUNTS = range(1200, 1209)  # 6,100 bytes of prompt each: the eighth is too much
SCENES = (
    Scene("One task with one tool", "What is 6 times 7? Ask the shell.", ("echo $((6 * 7))",), "42"),
    Scene("No room is left", "Count to 1208.", tuple(f"seq {last}" for last in COUNTS), "1208", refused=1),
)


@dataclass
class Take:
    """What came of a scene: what the agent said, its own account, our log, and what the model read and said."""

    done: subprocess.CompletedProcess[str]
    usage: dict[str, Any]
    log: list[dict[str, Any]]
    dialogue: list[tuple[str, str]]


def play(scene: Scene, model: CatalogModel, agent: Path) -> Take:
    """Once, with a server, a home and a folder of its own."""
    dialogue: list[tuple[str, str]] = []
    commands = iter(scene.commands)

    def script(request: GenerationRequest) -> Iterator[str]:
        prompt = "".join(piece for piece in request.prompt if isinstance(piece, str))
        pieces = what_a_model_would_say(prompt, commands)
        dialogue.append((prompt, "".join(pieces)))
        return iter(pieces)

    engine = FakeEngine([script], replace(LOADED, context=AGENT_CONTEXT))
    offers = [offer(model.short, context=AGENT_CONTEXT, known=model)]
    with served(ServerSettings(log_json=True), offers, lambda _: engine) as running:
        done, usage = perform(scene.task, model.short, running.port, agent)
    return Take(done, usage, [json.loads(line) for line in running.lines], dialogue)


def what_a_model_would_say(prompt: str, commands: Iterator[str]) -> list[str]:
    """A summary if there are no tools, the next command as long as there is one, and then what the shell said last."""
    if "<tools>" not in prompt:
        return [SUMMARY]
    command = next(commands, None)
    if command is None:
        output: str = json.loads(RESPONSE.findall(prompt)[-1])["output"]
        return ["The shell says ", output.splitlines()[-1], "."]
    call = json.dumps({"name": "terminal", "arguments": {"command": command}})
    return ["Let me ", "look.", "\n", "<tool_call>", f"\n{call}\n", "</tool_call>"]


def perform(task: str, model: str, port: int, agent: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The agent's part; its exit code is 0 even when it failed, so that its own account is needed, too."""
    # Its package has the name of ours: neither may be found by the other.
    environment = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        config = {"provider": "custom", "default": model, "base_url": f"http://127.0.0.1:{port}/v1"}
        (home / "config.yaml").write_text(json.dumps({"model": config}), encoding="utf-8")
        done = subprocess.run(
            [os.fspath(agent.absolute()), "-z", task, "-t", "terminal", "--usage-file", "usage.json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            cwd=folder,
            env={**environment, "HERMES_HOME": os.fspath(home)},
            timeout=TIMEOUT,
        )
        usage = Path(folder, "usage.json")
        return done, json.loads(usage.read_text(encoding="utf-8")) if usage.exists() else {}


def checks(scene: Scene, take: Take) -> dict[str, bool]:
    """What has to be true."""
    routes = {(line["method"], line["route"] or line["path"]): line["status"] for line in take.log}
    chats = [line for line in take.log if line["route"] == CHAT]
    answered = [line["prompt_tokens"] for line in chats if line["status"] == HTTPStatus.OK]
    turns = [(prompt, said) for prompt, said in take.dialogue if said != SUMMARY]
    read = sum(tokens for tokens, (_, said) in zip(answered, take.dialogue, strict=True) if said != SUMMARY)
    (first, _), (last, _) = turns[0], turns[-1]
    kept = [turns[at + 1][0].startswith(prompt + said) for at, (prompt, said) in enumerate(turns[:-1])]
    return {
        "it found no other server behind our address": OTHER_SERVERS.items() <= routes.items(),
        "it took the context length from us": OURS.items() <= routes.items(),
        "the model read the agent's system prompt": "You are Hermes Agent" in first,
        "the model read both tools": all(f'"name": "{name}"' in first for name in ("terminal", "process")),
        "calls came back byte by byte as the model wrote them": kept.count(False) == scene.refused,
        "the model read what the shell said": bool(RESPONSE.findall(last)),
        "as many requests were refused as had to be": len(chats) - len(answered) == scene.refused,
        "after each of those it asked for a summary": len(take.dialogue) - len(turns) == scene.refused,
        "the model went on with those summaries": (SUMMARY in last) == bool(scene.refused),
        "it said what the shell said": take.done.stdout == f"The shell says {scene.answer}.\n",
        "it says itself that all is done": take.usage.get("completed") is True and not take.usage.get("failed"),
        "it counted as many tokens as we did": take.usage.get("input_tokens") == read,
    }


def tell(scene: Scene, take: Take) -> bool:
    """Print it all; whether it was as it should be."""
    print(f"{scene.title}\n$ hermes -z {scene.task!r} -t terminal")
    for line in take.log:
        tokens = f", {line['prompt_tokens']:,}+{line['completion_tokens']} tokens" if line.get("prompt_tokens") else ""
        print(f"  {line['method']} {line['route'] or line['path']} {line['status']}{tokens}")
    print(take.done.stdout + take.done.stderr, end="")
    found = checks(scene, take)
    for what, true in found.items():
        print(f"  {'yes' if true else 'NO '} {what}")
    print()
    return all(found.values())


def main() -> int:
    """Both scenes."""
    models = {model.short: model for model in shipped_catalogue().models}
    parser = argparse.ArgumentParser(description="Hermes Agent does tasks against our server.")
    parser.add_argument("agent", type=Path, help="the agent's own command")
    parser.add_argument("--model", default="hermes-3:8b", choices=models, help="whose prompt format")
    told = parser.parse_args()
    good = [tell(scene, play(scene, models[told.model], told.agent)) for scene in SCENES]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
