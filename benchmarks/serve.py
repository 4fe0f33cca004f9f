"""`hermes serve` next to its own engine without HTTP, and next to llama-server: several chats at once, in one run.

    python benchmarks/serve.py model.gguf
    python benchmarks/serve.py model.gguf --rounds 9 --json
    python benchmarks/serve.py                               # the demo model, with lengths that fit its context

Without HTTP the engine is planned, loaded and asked by the very code that the server uses, in this process; its child
has the model in both cases. All are asked for the same chats, with the same seed, file, threads, context and slots, in
turns, as in engine.py. The template is the benchmark's own and has no marks at which a text could end. Texts are chosen
at a high temperature: others soon repeat themselves, and hermes, which guesses what repeats, would be measured by its
luck. Clients read in this process, too: what they cost is part of it.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil

from benchmarks.contest import Contestant, Row, compared, contest
from benchmarks.engine import described, table
from benchmarks.material import CITIES, NAMES, Json, Material
from benchmarks.peers import programs
from benchmarks.scenarios import STREAMS, WRITTEN, Measure, Outcome, Scenario
from benchmarks.sides import Counts, HttpSide, LlamaServer, Load, Piece, Side, Stream, Task, answer
from hermes_cli import paths
from hermes_cli.catalog.load import load_catalogue
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.generation import ChatModel, Content, Done, Message, TurnRequest
from hermes_cli.hardware.probe import probe
from hermes_cli.server.served_models import plan_models
from hermes_cli.server.settings import ModelEntry, ServerSettings

ROOMY = STREAMS * 256  # tokens of context with which all chats together have room
SHORT = 32  # tokens of an answer where there is less
WARM = 8
TEMPERATURE, SEED = 2, 1
TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
TARGET = 0.97  # of the bare engine's tokens per second


class Bare:
    """The engine as the server uses it, without HTTP."""

    name = "bare engine"

    def __init__(self, template: Path) -> None:
        self._template = template

    async def start(self, load: Load) -> None:
        """Plan and load as the server does."""
        entry = ModelEntry(
            model=str(load.path),
            context=load.cells,
            slots=load.slots,
            threads=load.threads,
            gpu_layers=load.gpu_layers,
            template=str(self._template),
        )
        settings = ServerSettings(models=(entry,))
        (served,) = plan_models(settings, load_catalogue(), probe(measure=False), print)
        model = served.model
        self._engine = model.engine()
        self._chatter = await ChatModel.open(self._engine, known=model.known, template=model.template)

    async def stream(self, task: Task) -> Stream:
        """Pieces, then the counts."""
        usual = self._chatter.recommended_sampling()
        sampling = replace(usual, temperature=TEMPERATURE, seed=SEED, ignore_eos=True)
        turn = TurnRequest([Message("user", task.prompt)], sampling=sampling, max_tokens=task.tokens)
        async with aclosing(self._chatter.answer(turn)) as events:
            async for event in events:
                if isinstance(event, Content):
                    yield Piece(perf_counter(), event.text, 1)
                elif isinstance(event, Done):
                    yield Counts(event.prompt_tokens, event.completion_tokens, event.accepted_tokens)

    async def close(self) -> None:
        """End it."""
        await self._engine.close()


def chat(task: Task) -> tuple[str, Json]:
    """A chat as both servers take it."""
    return "/v1/chat/completions", {
        "messages": [{"role": "user", "content": task.prompt}],
        "max_tokens": task.tokens,
        "temperature": TEMPERATURE,
        "seed": SEED,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def read_chat(event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
    """One chunk of a chat."""
    choices = event["choices"]
    text = choices[0]["delta"].get("content") or "" if choices else ""
    usage = event.get("usage")
    if not usage:
        return text, None
    guessed = event.get("timings", {}).get("draft_n_accepted", 0)
    return text, Counts(usage["prompt_tokens"], usage["completion_tokens"], guessed)


class HermesServe(HttpSide):
    """`hermes serve`."""

    name = "hermes serve"

    def __init__(self, template: Path) -> None:
        self._template = template
        self.tokens = 0  # generated so far

    def command(self, load: Load, port: int) -> list[str]:
        """How it is started."""
        return [
            *(sys.executable, "-m", "hermes_cli", "serve", str(load.path), "--port", str(port)),
            *("--context", str(load.cells), "--slots", str(load.slots), "--threads", str(load.threads)),
            *("--gpu-layers", str(load.gpu_layers), "--template", str(self._template)),
        ]

    def request(self, task: Task) -> tuple[str, Json]:
        """Path and body."""
        return chat(task)

    def read(self, event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
        """One chunk."""
        text, counts = read_chat(event)
        self.tokens += counts.completion if counts else 0
        return text, counts

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the server's own process, without its engine's."""
        times = psutil.Process(self._child.pid).cpu_times() if self._child else None
        return times.user + times.system if times else 0.0


class LlamaChats(LlamaServer):
    """llama-server's chats."""

    def __init__(self, template: Path, programs: Path) -> None:
        super().__init__(programs)
        self._template = template

    def command(self, load: Load, port: int) -> list[str]:
        """How it is started."""
        return [*super().command(load, port), "--jinja", "--chat-template-file", str(self._template)]

    def request(self, task: Task) -> tuple[str, Json]:
        """Path and body."""
        return chat(task)

    def read(self, event: Any) -> tuple[str, Counts | None]:  # noqa: ANN401 - JSON
        """One chunk."""
        return read_chat(event)


class Chats(Scenario):
    """Several chats at once, each with a short prompt that is like no other."""

    letter = "s"
    slots = STREAMS
    measures = (
        Measure("rate", "tokens/s", f"{STREAMS} chats together", more=True, target=TARGET),
        Measure("first", "s", "  their first tokens"),
    )

    @classmethod
    def cells(cls, material: Material) -> int:
        """All that there is."""
        return material.reach

    async def warm(self, side: Side) -> None:
        """Short ones."""
        await self._ask(side, 0, WARM)

    async def run(self, side: Side, number: int) -> Outcome:
        """Tokens per second of all together, from sending to the last end; the median of the first tokens."""
        return await self._ask(side, number, WRITTEN if self.material.reach >= ROOMY else SHORT)

    async def _ask(self, side: Side, number: int, tokens: int) -> Outcome:
        tasks = [Task(question(number * STREAMS + i), tokens) for i in range(STREAMS)]
        got = await asyncio.gather(*(answer(side, task) for task in tasks))
        counted = [one.counts for one in got]
        seconds = max(one.ended for one in got) - min(one.sent for one in got)
        written = sum(one.completion for one in counted)
        return Outcome(
            {"rate": written / seconds, "first": statistics.median(one.first for one in got)},
            sum(one.prompt for one in counted),
            written,
            sum(one.guessed for one in counted),
        )


def question(number: int) -> str:
    """A short one."""
    name, city = NAMES[number % len(NAMES)], CITIES[number // len(NAMES) % len(CITIES)]
    return f"{name} {number} sails to {city}. What happened on board?"


async def measured(
    served: HermesServe, others: tuple[Side, ...], load: Load, material: Material, rounds: int
) -> tuple[list[Row], str]:
    """All sides in turn: what comes of it, and what the server's process took for it."""
    sides: tuple[Side, ...] = (served, *others)
    contestants = [Contestant(side.name, side, Chats(material)) for side in sides]
    async with AsyncExitStack() as stack:
        for side in sides:
            stack.push_async_callback(side.close)
            await side.start(load)
        await contest(contestants, 0)  # what is imported with the first requests is not to count below
        seconds, tokens = served.cpu_seconds, served.tokens
        await contest(contestants, rounds)
        each = (served.cpu_seconds - seconds) / (served.tokens - tokens)
    return compared(contestants), f"the server's own process took {each * 1000:.2f} ms of CPU for each token"


def with_target(row: Row) -> Row:
    """The target is for what HTTP costs; llama-server's numbers are for the record."""
    wanted = row.measure == "rate" and row.second == Bare.name
    return replace(row, target=TARGET) if wanted else row


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=paths.asset("demo.gguf"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=probe(measure=False).cores)
    parser.add_argument("--gpu-layers", type=int, default=0, help="-1 is all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    peers = programs()
    with LlamaModel(options.file, no_alloc=True) as model:
        material = Material(lambda text: len(model.vocabulary.tokenize(text, special=True)), model.trained_context)
    load = Load(options.file.absolute(), options.threads, Chats.cells(material), Chats.slots, options.gpu_layers)
    about = described(load, peers, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder, "template.jinja")
        template.write_text(TEMPLATE)
        others = (Bare(template), LlamaChats(template, peers))
        found, note = asyncio.run(measured(HermesServe(template), others, load, material, options.rounds))
    rows = [with_target(row) for row in found]
    if options.json:
        print(json.dumps({**about, "rows": [asdict(row) for row in rows], "notes": [note]}, indent=2))
    else:
        print(table(about, rows, [note]))


if __name__ == "__main__":
    main()
