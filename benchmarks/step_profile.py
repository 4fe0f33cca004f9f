"""One decode step of the scheduler: how much of it is llama.cpp's own time, and how much is hermes'.

    python benchmarks/step_profile.py                          # the demo model
    python benchmarks/step_profile.py model.gguf --steps 300
    python benchmarks/step_profile.py --functions              # which functions of hermes it is

1 and 8 sequences write, greedily and then with the usual samplers, without speculation, in this process and with
nobody waiting for the text. hermes' part is to stay below 0.2 ms + 0.05 ms for each sequence. With one thread nothing
of llama.cpp's can be in the way of it.
"""

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from hermes_cli import paths
from hermes_cli.engine.embedded.llama import LlamaContext, LlamaModel
from hermes_cli.engine.embedded.scheduler import Scheduler
from hermes_cli.engine.embedded.sequence import Job
from hermes_cli.engine.protocol import Done, Event
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.errors import HermesError
from hermes_cli.planning.memory import ContextSettings

SEQUENCES = (1, 8)
STEP, SEQUENCE = 0.2, 0.05  # ms
PROMPT = "The pilot paints the old lantern behind the market, and number {} asks why. "
LEAD = 10  # steps before it is measured
SAMPLINGS = {
    "greedy": SamplingOptions(temperature=0, ignore_eos=True),
    "usual": SamplingOptions(seed=1, ignore_eos=True),
}


class Profile:
    """A scheduler with some sequences that write."""

    def __init__(self, model: LlamaModel, sequences: int, sampling: SamplingOptions, steps: int, threads: int) -> None:
        each = steps + LEAD + 32  # the prompt
        settings = ContextSettings(sequences * each, sequences)
        self._context = LlamaContext(model, settings, threads=threads)
        self._scheduler = Scheduler(model, self._context, self._take, slots=sequences, lookup=False)
        for number in range(sequences):
            prompt = model.vocabulary.tokenize(PROMPT.format(number), special=True)
            request = GenerationRequest(tuple(prompt), sampling, steps + LEAD, speculate=False)
            self._scheduler.submit(Job(number, request, prompt))
        for _ in range(LEAD):
            self._scheduler.step()

    def steps(self, count: int) -> tuple[list[float], list[float]]:
        """Milliseconds of each step: all of it, and what of it is not llama_decode."""
        whole, own = [], []
        for _ in range(count):
            before = self._scheduler.stats().decode_seconds
            started = time.perf_counter()
            self._scheduler.step()
            seconds = time.perf_counter() - started
            decoded = self._scheduler.stats().decode_seconds - before
            whole.append(seconds * 1e3)
            own.append((seconds - decoded) * 1e3)
        return whole, own

    def close(self) -> None:
        """Free the context."""
        self._context.close()

    def _take(self, _: int, event: Event | HermesError) -> None:
        if isinstance(event, HermesError):
            raise event
        if isinstance(event, Done) and event.reason != "length":
            raise AssertionError(event)


def functions(step: Callable[[], object]) -> None:
    """Print where the time goes."""
    profiler = cProfile.Profile()
    profiler.runcall(step)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Measure, for each kind of sampling and number of sequences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=paths.asset("demo.gguf"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--functions", action="store_true")
    options = parser.parse_args()
    with LlamaModel(options.file) as model:
        size = model.vocabulary.size
        print(
            f"{options.file.name}, {size:,} tokens in the vocabulary, {options.steps} steps, {options.threads} threads"
        )
        for name, sampling in SAMPLINGS.items():
            for sequences in SEQUENCES:
                profile = Profile(model, sequences, sampling, options.steps, options.threads)
                if options.functions:
                    functions(lambda: profile.steps(options.steps))  # noqa: B023 - used at once
                    continue
                whole, own = profile.steps(options.steps)
                profile.close()
                limit, step, middle = STEP + SEQUENCE * sequences, statistics.median(whole), statistics.median(own)
                print(
                    f"{name:7} {sequences} sequences: hermes {middle:.3f} ms of a step's {step:.3f} ms"
                    f" (mean {statistics.fmean(own):.3f} ms), {middle / sequences:.3f} ms a sequence;"
                    f" {middle / limit:.2f} x the limit of {limit:.2f} ms"
                )


if __name__ == "__main__":
    main()
