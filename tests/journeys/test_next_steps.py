"""Every command that hermes prints as the next step, run as it is printed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Finished, RunHermes, keep_catalogue
from hub_server import Hub, serving

from hermes_cli import paths
from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.variants import variants

# A command stands at the beginning of a line or behind a colon, and ends with the line, or before what goes on.
PRINTED = re.compile(r"(?:^|: |, or |, then: )\s*(hermes [a-z].*?)(?=$| · |[,;] | \(|\. | or see )", re.MULTILINE)
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    demo = paths.asset("demo.gguf").read_bytes()
    repositories = {
        "one/Only-GGUF": {"Only.gguf": demo},
        "two/Two-GGUF": {"A big one-Q4_K_M.gguf": demo, "B-Q4_K_M.gguf": demo},
        "vision/VL-GGUF": {"VL-7B-Q4_K_M.gguf": demo, "mmproj-VL-7B-F16.gguf": demo},
        "vision/Part-GGUF": {"mmproj-F16.gguf": demo},
        "typo/Panic-GGUF": {"Don\u2019t Panic \u2013 it's.gguf": demo},
        "old/Types-GGUF": {"T-Q4_0.gguf": demo, "T-Q4_0_4_4.gguf": demo},
        "dirs/Dirs-GGUF": {"Q4_K_M/model.gguf": demo, "Q8_0/model.gguf": demo},
    }
    for variant in (variant for model in shipped_catalogue().models for variant in variants(model)):
        repositories.setdefault(variant.repository.repo, {}).update(dict.fromkeys(variant.files, demo))
    with serving(Hub({name: dict(files) for name, files in repositories.items()})) as running:
        yield running


@pytest.fixture
def run(hermes: RunHermes, hub: Hub, tmp_path: Path) -> Run:
    ours = {f"HERMES_LLM_{name}_DIR": str(tmp_path / name.lower()) for name in ("CACHE", "DATA", "CONFIG", "STATE")}
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
    environment = {**hub.environment, **ours, **cache}
    keep_catalogue(tmp_path / "cache")
    return lambda *arguments: hermes(*arguments, stdin="Hi", env=environment)


def printed_commands(done: Finished) -> list[str]:
    return [match[1] for match in PRINTED.finditer(f"{done.stdout}\n{done.stderr}") if "NAME" not in match[1]]


def follow(run: Run, *arguments: str) -> list[str]:
    """Run a command, and what it and the commands after it print, until all have succeeded; returns all of them."""
    todo, seen = [shlex.join(["hermes", *arguments])], list[str]()
    while todo:
        command = todo.pop(0)
        if command in seen:
            continue
        seen.append(command)
        done = run(*shlex.split(command)[1:])
        assert "Traceback" not in done.stderr
        steps = printed_commands(done)
        if done.returncode:
            assert "next: " in done.stderr
            assert [step for step in steps if step not in seen], f"{command} leads nowhere: {done.stderr}"
        todo += steps
    return seen


@pytest.mark.parametrize(
    ("arguments", "leads_to"),
    [
        (("pull", "hermes-3:3b:Q4_K_M"), "hermes chat hermes-3:3b:Q4_K_M"),
        (("pull", "one/Only-GGUF"), "hermes chat one/Only-GGUF/Only.gguf"),
        pytest.param(
            ("pull", "https://huggingface.co/one/Only-GGUF/blob/main/Only.gguf"),
            "hermes chat one/Only-GGUF/Only.gguf",
            marks=pytest.mark.long,
        ),
        (("pull", "two/Two-GGUF:Q4_K_M"), "hermes chat 'two/Two-GGUF/A big one-Q4_K_M.gguf'"),
        pytest.param(
            ("chat", "two/Two-GGUF"), "hermes chat 'two/Two-GGUF/A big one-Q4_K_M.gguf'", marks=pytest.mark.long
        ),
        pytest.param(("pull", "vision/VL-GGUF"), "hermes chat vision/VL-GGUF:Q4_K_M", marks=pytest.mark.long),
        (("pull", "vision/Part-GGUF"), "hermes pull vision/Part-GGUF/mmproj-F16.gguf"),
        (("pull", "typo/Panic-GGUF"), "hermes chat 'typo/Panic-GGUF/Don\u2019t Panic \u2013 it'\"'\"'s.gguf'"),
        pytest.param(("pull", "old/Types-GGUF"), "hermes chat old/Types-GGUF:Q4_0", marks=pytest.mark.long),
        pytest.param(("pull", "old/Types-GGUF:Q4_0_4_4"), None, marks=pytest.mark.long),
        pytest.param(("pull", "dirs/Dirs-GGUF:Q8_0"), "hermes chat dirs/Dirs-GGUF:Q8_0", marks=pytest.mark.long),
        (("chat", "hermes-3:3b"), "hermes pull hermes-3:3b:Q4_K_M"),
        pytest.param(("chat", "hermes-3:3b:Q4_K_M"), "hermes chat hermes-3:3b:Q4_K_M", marks=pytest.mark.long),
        (("chat", "one/Only-GGUF/Only.gguf"), "hermes chat one/Only-GGUF/Only.gguf"),
        pytest.param(("chat", "./missing.gguf"), "hermes list --installed", marks=pytest.mark.long),
        (("chat", "hermez-3:3b"), "hermes list"),
        (("show", "hermes-3:3b"), None),
        pytest.param(("pull", "demo"), 'hermes chat demo "Hi"', marks=pytest.mark.long),
        (("list",), "hermes list --all"),
        pytest.param(("list", "--installed"), "hermes chat demo", marks=pytest.mark.long),
        (("rm",), "hermes list --installed"),
    ],
)
def test_the_printed_next_step_works(run: Run, arguments: tuple[str, ...], leads_to: str | None) -> None:
    seen = follow(run, *arguments)
    assert leads_to is None or leads_to in seen


def test_the_recommended_commands_work(run: Run) -> None:
    """The demo stands in for every model of the catalogue; it was trained for 1024 tokens."""
    seen = follow(run, "recommend", "--context", "512", "--ram", "8G")
    assert [step.split()[1] for step in seen] == ["recommend", "pull", "chat", "chat"]


def test_every_listed_name_can_be_typed(run: Run) -> None:
    for repo in ("one/Only-GGUF", "typo/Panic-GGUF", "vision/VL-GGUF", "dirs/Dirs-GGUF:Q8_0", "hermes-3:3b:Q4_K_M"):
        assert run("pull", repo).returncode == 0
    listed = json.loads(run("list", "--installed", "--json").stdout)["models"]
    assert len(listed) == 5
    for model in listed:
        done = run("chat", model["name"])
        assert done.returncode == 0, done.stderr
