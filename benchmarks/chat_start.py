"""From typing the command to seeing something: the first prompt, and the first word of an answer next to llama-cli's.

    python benchmarks/chat_start.py                              # the demo model
    python benchmarks/chat_start.py gemma-3-270m-q4_k_m.gguf     # another one

Each run is a new process, files are in the system's cache. Both sides answer the same question with the same file,
threads and context, greedily; they take turns, and ratios are taken pair by pair, their median first. `llama-cli` comes
from peers.py.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pexpect

from benchmarks.peers import programs
from hermes_cli import paths

QUESTION = "Who are you?"
CONTEXT = 1024
CURSOR = ("\x1b[6n", "\x1b[1;1R")  # where is the cursor, and what a terminal answers
FIRST_PROMPT = re.compile(rb"\x1b\[[0-9;]*m>")


def first_prompt(model: str, folder: Path) -> float:
    """Seconds until the conversation asks for the first line."""
    environment = {**os.environ, "HERMES_LLM_DATA_DIR": str(folder), "TERM": "xterm-256color"}
    started = time.perf_counter()
    child: pexpect.spawn[bytes] = pexpect.spawn(
        sys.executable, ["-m", "hermes_cli", "chat", model], env=environment, dimensions=(24, 80), timeout=60
    )
    seen = b""
    while not FIRST_PROMPT.search(seen):
        seen += child.read_nonblocking(65_536, 60)
        if CURSOR[0].encode() in seen:
            child.send(CURSOR[1].encode())
            seen = seen.replace(CURSOR[0].encode(), b"")
    seconds = time.perf_counter() - started
    child.close(force=True)
    return seconds


def first_word(command: list[str], behind: bytes) -> float:
    """Seconds until the first letter on standard output behind some text."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        seen = b""
        while not seen.partition(behind)[2].strip() if behind else not seen.strip():
            piece = os.read(child.stdout.fileno(), 65_536) if child.stdout else b""
            if not piece:
                sys.exit(f"{command[0]} ended without an answer")
            seen += piece
        seconds = time.perf_counter() - started
        child.kill()
    return seconds


def main() -> None:
    """Measure, and print the ratio first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(paths.asset("demo.gguf")))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    threads = str(given.threads)
    hermes = [sys.executable, "-m", "hermes_cli", "chat", given.model, QUESTION, "--temperature", "0"]
    hermes += ["--context", str(CONTEXT), "--threads", threads]
    theirs = [str(programs() / "llama-cli"), "-m", given.model, "-p", QUESTION, "-st", "--simple-io", "--temp", "0"]
    theirs += ["-c", str(CONTEXT), "-t", threads, "-n", "40"]
    rounds = range(given.rounds + 1)  # the first warms up
    pairs = [(first_word(hermes, b""), first_word(theirs, f"> {QUESTION}".encode())) for _ in rounds][1:]
    # Afterwards: a conversation that was left takes a moment to end.
    with tempfile.TemporaryDirectory() as folder:
        prompts = [first_prompt(given.model, Path(folder)) for _ in rounds][1:]
    ratios = [ours / others for ours, others in pairs]
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"first word of an answer: {statistics.median(ratios):.2f} x the seconds of llama-cli {spread}")
    print(f"  hermes     {statistics.median(ours for ours, _ in pairs):.2f} s")
    print(f"  llama-cli  {statistics.median(others for _, others in pairs):.2f} s")
    print(
        f"first prompt of a conversation: {statistics.median(prompts):.2f} s ({min(prompts):.2f} to {max(prompts):.2f})"
    )


if __name__ == "__main__":
    main()
