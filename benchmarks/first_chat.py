"""First token and tokens per second: hermes' engine next to llama-cpp-python's own `Llama` class, in one run.

    python benchmarks/first_chat.py                              # the demo model alone
    python benchmarks/first_chat.py gemma-3-270m-q4_k_m.gguf     # and this file

Both sides get the same tokens, threads, context and greedy sampling, and stop at the same place; both keep in their
caches what prompts share. hermes' engine is a child process, asked as `hermes chat` asks it; the class works in this
process. They take turns, so that a machine that slows down slows both; ratios are taken pair by pair and their median
is printed first.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import llama_cpp

from hermes_cli import paths
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.protocol import Done
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.hardware.probe import probe
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

CONTEXT = 2048
PROMPTS = {
    "demo": "<|im_start|>user\nWhat is {}?<|im_end|>\n<|im_start|>assistant\n",
    "other": "The history of {} is long. " + "It has many chapters. " * 12,
}
WORDS = ["GGUF", "Hermes", "ChatML", "quantization", "llama.cpp", "temperature", "VRAM", "JSON mode"]


@dataclass(frozen=True)
class Run:
    """One generation: seconds to the first token, tokens per second after it, and how many tokens came."""

    first: float
    rate: float
    tokens: int


Side = Callable[[list[int]], Awaitable[Run]]


def timed(started: float, stamps: list[float], tokens: int) -> Run:
    """From the moments at which text came, and how many tokens that was."""
    return Run(stamps[0] - started, (tokens - 1) / (stamps[-1] - stamps[0]), tokens)


def ours(engine: EmbeddedEngine, most: int) -> Side:
    """The engine of hermes."""

    async def side(prompt: list[int]) -> Run:
        started, stamps, done = time.perf_counter(), [], None
        async for event in engine.generate(GenerationRequest(tuple(prompt), SamplingOptions(temperature=0), most)):
            if isinstance(event, Done):
                done = event
            else:
                stamps.append(time.perf_counter())
        assert done is not None  # noqa: S101 - the engine's contract
        return timed(started, stamps, done.completion_tokens)

    return side


def theirs(path: Path, threads: int, most: int) -> Side:
    """llama-cpp-python's high-level class."""
    llama = llama_cpp.Llama(str(path), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False)
    ends = llama._model.token_eos(), llama.token_eos()  # noqa: SLF001 - the class has no public list of ends

    async def side(prompt: list[int]) -> Run:
        stamps: list[float] = []
        started = time.perf_counter()
        for token in llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            if token in ends or len(stamps) == most:
                break
            llama.detokenize([token])
            stamps.append(time.perf_counter())
        return timed(started, stamps, len(stamps))

    return side


async def compare(name: str, path: Path, threads: int, rounds: int, most: int) -> None:
    """Let both sides take turns on one file and print the ratios, then the medians."""
    engine = EmbeddedEngine(path, LoadPlan(ContextSettings(CONTEXT), threads=threads))
    mine, peer = ours(engine, most), theirs(path, threads, most)
    pairs: list[tuple[Run, Run]] = []
    for number in range(rounds + 1):
        text = PROMPTS["demo" if name == "demo" else "other"].format(WORDS[number % len(WORDS)])
        prompt = await engine.tokenize(text)
        if number % 2:
            pair = await mine(prompt), await peer(prompt)
        else:
            pair = (await peer(prompt), await mine(prompt))[::-1]
        if number:  # the first round warms both up
            pairs.append((pair[0], pair[1]))
    await engine.close()
    rate = statistics.median(a.rate / b.rate for a, b in pairs)
    first = statistics.median(a.first / b.first for a, b in pairs)
    print(f"{name}: {rate:.2f} x the tokens per second, {first:.2f} x the time to the first token ({rounds} pairs)")
    for title, index in (("hermes", 0), ("Llama class", 1)):
        runs = [pair[index] for pair in pairs]
        print(
            f"  {title:12} {statistics.median(run.rate for run in runs):8.1f} tokens/s"
            f"  first token {statistics.median(run.first for run in runs) * 1000:7.1f} ms"
            f"  {sum(run.tokens for run in runs)} tokens in all"
        )


def main() -> None:
    """Parse arguments and compare on the demo model and on the file, if one is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of one generation")
    options = parser.parse_args()
    threads = probe(measure=False).cores
    print(f"llama-cpp-python {llama_cpp.__version__}, {threads} threads, greedy")
    files = {"demo": paths.asset("demo.gguf"), **({options.file.name: options.file} if options.file else {})}
    for name, path in files.items():
        asyncio.run(compare(name, path, threads, options.rounds, options.tokens))


if __name__ == "__main__":
    main()
