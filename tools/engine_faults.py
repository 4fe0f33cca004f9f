"""Kills the engine's process again and again under load, and counts what becomes of the requests.

    python tools/engine_faults.py                 # two minutes
    python tools/engine_faults.py --seconds 10    # a short look

Clients ask the demo model for anything at random: long and short answers, constraints, stop texts, nonsense; they read
quickly, slowly or not at all, and often go away. Each request has to end in an answer or in an error that says why, and
afterwards everything has to be as before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from hermes_cli import paths
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.engine.protocol import Done, TextEvent
from hermes_cli.engine.request import GenerationRequest, ReasoningOptions, SamplingOptions
from hermes_cli.engine.restart_backoff import RESTART_DELAYS
from hermes_cli.errors import HermesError
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings
from hermes_cli.prompting.structured_output import json_schema
from hermes_cli.prompting.turn_grammar import TAGS, SpecialTokens, turn_grammar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from hermes_cli.engine.protocol import Event, ModelInfo

PLAN = LoadPlan(ContextSettings(1024, slots=4), threads=1)
MOST_QUEUED = 6
PATIENCE = 60.0  # seconds; a request that takes longer hangs
LONGEST_PAUSE = RESTART_DELAYS[:3]  # with the usual ones there would be few deaths to see
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
WANTED = {"answered", "cancelled", "EngineDiedError"}  # ends that a run has to have seen
LIFETIMES = (0.1, 4.0)  # seconds from one kill to the next
QUESTIONS = ("Who are you?", "What can you do?", "What's the weather in Tokyo?", "Count to five.")
KEYS = ["name", "old"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "old": {"type": "boolean"}},
    "required": KEYS,
    "additionalProperties": False,
}


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        ends: requests by how they ended.
        kills: of the child.
        hung: requests that did not end.
        wrong: answers that are not what they had to be.
        left: what is still there in the end that was not in the beginning: processes, tasks, open files.
        grown: bytes of RAM that this process has more than when all was warm.
        counted: the engine's own counts agree.
    """

    ends: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    hung: int = 0
    wrong: int = 0
    left: int = 0
    grown: int = 0
    counted: bool = False

    def __str__(self) -> str:
        rows = [
            ("kills of the child", self.kills),
            ("requests", self.ends.total()),
            *sorted(self.ends.items()),
            ("hung", self.hung),
            ("wrong answers", self.wrong),
            ("processes, tasks and files left", self.left),
            ("memory grown, MB", round(self.grown / 1e6, 1)),
            ("counted right by the engine", "yes" if self.counted else "no"),
        ]
        return "\n".join(("| what | times |", "| --- | ---: |", *(f"| {name} | {count} |" for name, count in rows)))


class Trial:
    """Clients and a killer around one engine."""

    def __init__(self, seconds: float, clients: int, seed: int, delays: Sequence[float]) -> None:
        self._until = time.monotonic() + seconds
        self._clients = clients
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._engine = EmbeddedEngine(
            paths.asset("demo.gguf"), PLAN, EngineOptions(TAGS, max_queue=MOST_QUEUED), restart_delays=delays
        )
        self._grammar = ""
        self._warm = 0
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Let them go, and look at what is left."""
        before = _held()
        self._grammar = _grammar(await self._engine.load())
        killer = asyncio.ensure_future(self._kill())
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))
        await killer
        await self._ask(GenerationRequest(("The end",), max_tokens=5), impatient=False)
        stats, ends = await self._engine.stats(), self.outcome.ends
        failed = sum(count for end, count in ends.items() if end not in {"answered", "cancelled"})
        told = (stats.requests, stats.failed, stats.cancelled)
        self.outcome.counted = told == (ends.total(), failed, ends["cancelled"])
        await self._engine.close()
        self.outcome.grown = psutil.Process().memory_info().rss - self._warm
        self.outcome.left = max(_held() - before, 0)  # what others leave meanwhile is no fault
        return self.outcome

    async def _client(self, number: int) -> None:
        while self._goes_on():
            await self._ask(self._request(f"client {number}"), impatient=self._chance.random() < 0.25)  # noqa: PLR2004
            await asyncio.sleep(self._chance.choice((0, 0, 0.05)))

    def _goes_on(self) -> bool:
        """Return whether the time is not over, or a way in which requests have to end has not been seen."""
        return time.monotonic() < self._until or not self.outcome.ends.keys() >= WANTED

    async def _kill(self) -> None:
        while self._goes_on():
            await asyncio.sleep(self._chance.uniform(*LIFETIMES))
            for child in _engines():
                with suppress(ProcessLookupError):
                    os.kill(child.pid, self._chance.choice(SIGNALS))
                    self.outcome.kills += 1
            self._warm = self._warm or psutil.Process().memory_info().rss

    async def _ask(self, request: GenerationRequest, *, impatient: bool) -> None:
        """One request, and how it ends."""
        stream = self._engine.generate(request)
        leave_after = self._chance.uniform(0, 0.5) if impatient else PATIENCE
        reading = asyncio.ensure_future(self._read(stream, request))
        try:
            self.outcome.ends[await asyncio.wait_for(reading, leave_after)] += 1
        except TimeoutError:
            self.outcome.ends["cancelled"] += 1
            self.outcome.hung += not impatient
        except HermesError as error:
            self.outcome.ends[type(error).__name__] += 1
            self.outcome.wrong += not error.hint
        finally:
            await stream.aclose()

    async def _read(self, stream: AsyncGenerator[Event, None], request: GenerationRequest) -> str:
        text, done = "", None
        pause = self._chance.choice((0, 0, 0, 0.02, 0.3))
        async for event in stream:
            if isinstance(event, TextEvent):
                text += event.text
                await asyncio.sleep(pause)
            else:
                done = event
        self.outcome.wrong += not self._right(text, done, request)
        return "answered"

    def _right(self, text: str, done: Done | None, request: GenerationRequest) -> bool:
        if done is None or any(stop in text for stop in request.stops):
            return False
        if request.grammar and done.reason == "stop":
            return list(json.loads(text)) == KEYS
        return True

    def _request(self, client: str) -> GenerationRequest:
        chance = self._chance
        question = f"<|im_start|>user\n{chance.choice(QUESTIONS)}<|im_end|>\n<|im_start|>assistant\n"
        kinds: dict[str, dict[str, object]] = {
            "plain": {},
            "wild": {"sampling": SamplingOptions(temperature=1.5, seed=chance.randrange(9)), "top_logprobs": 3},
            "held": {"grammar": self._grammar, "max_tokens": 200},
            "stopped": {"stops": ("\n", ".", "the")},
            "thinking": {"reasoning": ReasoningOptions(3, inside=True)},
            "endless": {"sampling": SamplingOptions(temperature=0, ignore_eos=True), "shift": chance.random() < 0.1},  # noqa: PLR2004
            "too long": {"prompt": ("word " * 3000,)},
            "no grammar": {"grammar": "nonsense"},
            "no token": {"prompt": (1 << 40,)},
            "too large": {"max_tokens": 10**30},
        }
        chosen = chance.choices(list(kinds), (6, 4, 5, 4, 2, 3, 1, 1, 1, 1))[0]
        most = chance.choice((1, 10, 50, 300))
        return GenerationRequest(**{"prompt": (question,), "max_tokens": most, "client": client, **kinds[chosen]})  # type: ignore[arg-type]


def _grammar(loaded: ModelInfo) -> str:
    grammar = turn_grammar(json_schema(SCHEMA), None, tokens=SpecialTokens(loaded.tags, loaded.others))
    return grammar or ""


def _held() -> int:
    """Processes, tasks and open files of this process."""
    me = psutil.Process()
    return len(_engines()) + len(asyncio.all_tasks()) + (me.num_fds() if hasattr(me, "num_fds") else 0)


def _engines() -> list[psutil.Process]:
    """The engine's processes; the one in which grammars are tried is none of them."""
    return [
        one for one in psutil.Process().children() if "hermes_cli.engine.embedded.worker" in " ".join(_command(one))
    ]


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


def trial(seconds: float, clients: int = 12, seed: int = 0, delays: Sequence[float] = LONGEST_PAUSE) -> Outcome:
    """Kill and ask for so many seconds."""
    json_schema(SCHEMA)  # starts the process in which grammars are tried: it is kept, and no leak

    async def run() -> Outcome:
        return await Trial(seconds, clients, seed, delays).run()

    return asyncio.run(run())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(trial(options.seconds, options.clients, options.seed))


if __name__ == "__main__":
    main()
