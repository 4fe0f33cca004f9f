"""The prebuilt llama-server of `hermes engine install`, as machines without a compiler get it, beside the embedded engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import WaitFor
from parity_turns import HELD_TURNS, TURNS, events_of, told

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.engine.upstream.install import install
from hermes_cli.errors import EngineError
from hermes_cli.generation import ChatModel
from hermes_cli.models.engine_choice import own
from hermes_cli.models.resolve import EngineChoice, ModelRequest
from hermes_cli.planning.load_plan import LoadOverrides

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def prebuilt(tmp_path_factory: pytest.TempPathFactory, wait_for: WaitFor) -> Iterator[ChatModel]:
    """The demo model in xllamacpp, which is fetched from PyPI: 34 MB."""
    before = dict(os.environ)
    with TemporaryDirectory() as runtime:
        data = tmp_path_factory.mktemp("data")
        os.environ |= {"HERMES_LLM_DATA_DIR": str(data), "XDG_RUNTIME_DIR": runtime, "HERMES_LLM_CACHE_DIR": str(data)}
        try:
            install("llama-server", "xllamacpp", lambda _: None)
            program = EngineChoice("llama-server")
            engine = own(ModelRequest("demo", LoadOverrides(1024), engine=program), load_catalogue()).engine()
            yield wait_for(ChatModel.open(engine))
            wait_for(engine.close())
        except EngineError as error:
            if "pip install" not in error.message:
                raise
            pytest.skip(f"PyPI cannot be reached: {error.message}")
        finally:
            os.environ.clear()
            os.environ.update(before)
    assert not list(Path(data).glob("engines/*.log"))


@pytest.mark.parametrize("name", [*TURNS, *(f"held: {name}" for name in HELD_TURNS)])
def test_it_answers_as_the_embedded_engine_does(
    prebuilt: ChatModel, demo_chatter: ChatModel, wait_for: WaitFor, name: str
) -> None:
    turn = HELD_TURNS[name.removeprefix("held: ")] if name.startswith("held: ") else TURNS[name]
    turn = replace(turn, sampling=turn.sampling or SamplingOptions(temperature=0))
    answers = [told(wait_for(events_of(model, turn))) for model in (prebuilt, demo_chatter)]
    assert answers[0] == answers[1]
