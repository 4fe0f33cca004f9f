"""Real vLLM and llama-server, as hermes starts them: `make test-engines`.

Not part of `make test`: vLLM takes 3.5 GB of disk, and each of its starts a minute.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import WaitFor
from demo_safetensors import write_folder
from parity_turns import HELD_TURNS, TURNS, asked, events_of, told

from hermes_cli.catalog.load import load_catalogue
from hermes_cli.engine.protocol import Engine
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.engine.upstream.programs import find_program
from hermes_cli.errors import EngineError, NotFoundError
from hermes_cli.generation import ChatModel
from hermes_cli.models.engine_choice import own
from hermes_cli.models.resolve import EngineChoice, ModelRequest
from hermes_cli.planning.load_plan import LoadOverrides

pytestmark = pytest.mark.skipif("HERMES_TEST_ENGINES" not in os.environ, reason="make test-engines")

MARK = "HERMES_TEST_ENGINE_OF"
LAUNCHES = {
    "llama-server": ("llama-server", ()),
    "vLLM": ("vllm", ()),
    "vLLM, tensor parallel 2": ("vllm", ("-tp", "2")),
}


LONG = asked("Tell me a story", sampling=SamplingOptions(temperature=0, ignore_eos=True), max_tokens=900)


@dataclass
class Started:
    engine: Engine
    model: ChatModel
    mark: str

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The processes of this engine, of that name; the one that listens comes first."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or is somebody else's
                words = process.cmdline()
                if ("serve" in words or "--host" in words) and process.environ().get(MARK) == self.mark:
                    every = (process, *process.children(recursive=True))
                    found += [one for one in every if one.name().startswith(name)]
        return found


@pytest.fixture(scope="module", params=LAUNCHES)
def started(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    demo_path: Path,
    wait_for: WaitFor,
) -> Iterator[Started]:
    name, arguments = LAUNCHES[request.param]
    try:
        find_program("vllm" if name == "vllm" else "llama-server")
    except NotFoundError as missing:
        pytest.skip(f"{missing.message} {missing.hint}")
    if name == "vllm" and "avx512f" not in Path("/proc/cpuinfo").read_text("utf-8"):
        pytest.skip("vLLM computes on CPUs with AVX-512 only")
    folder = demo_path
    if name == "vllm":
        folder = tmp_path_factory.mktemp("demo")
        write_folder(folder)
        arguments = ("--dtype", "float32", "--enforce-eager", "--gpu-memory-utilization", "0.1", *arguments)
    with pytest.MonkeyPatch.context() as environment:
        mark = uuid.uuid4().hex
        variables = {MARK: mark, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
        if "-tp" in arguments:
            variables["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
        for key, value in variables.items():
            environment.setenv(key, value)
        choice = EngineChoice(name, arguments=arguments)
        planned = own(ModelRequest(str(folder), LoadOverrides(context=1024), engine=choice), load_catalogue())
        engine = planned.engine()
        one = Started(engine, wait_for(ChatModel.open(engine)), mark)
        yield one
        wait_for(engine.close())
        assert not one.processes()


def test_the_whole_matrix_is_what_the_embedded_engine_says(
    started: Started, wait_for: WaitFor, demo_chatter: ChatModel
) -> None:
    turns = dict(TURNS)
    if started.model.loaded.grammars:
        turns |= {f"held: {name}": turn for name, turn in HELD_TURNS.items()}
    if started.processes("VLLM::"):
        del turns["DRY"]
    there, here = (
        {name: told(wait_for(events_of(model, turn))) for name, turn in turns.items()}
        for model in (started.model, demo_chatter)
    )
    assert there == here


@pytest.mark.parametrize("victim", ["VLLM::Worker", "VLLM::EngineCor", ""])
def test_a_process_that_is_killed_in_an_answer_is_an_error_and_the_next_one_works(
    started: Started, wait_for: WaitFor, victim: str
) -> None:
    before = started.processes()
    if victim and len(before) == 1:
        return  # llama-server is one process

    async def answer_while_it_is_killed() -> None:
        async with aclosing(started.model.answer(LONG)) as events:
            await anext(events)
            started.processes(victim)[0].send_signal(signal.SIGKILL)
            async for _ in events:
                pass

    with pytest.raises(EngineError):
        wait_for(answer_while_it_is_killed())
    assert told(wait_for(events_of(started.model, TURNS["chat"])))["content"].startswith("I can call tools")
    assert not [process for process in before if process.is_running()]
