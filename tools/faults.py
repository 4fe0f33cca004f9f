"""Breaks downloads in every way that tests/hub_server.py knows, at random, and writes the table of docs/downloads.md.

    python tools/faults.py               # about ten minutes
    python tools/faults.py --runs 5      # a short look; leaves the page alone

Server and clients are processes of their own. After every run of a client the whole library is hashed: under its name
there must be nothing but the right file. Then the client runs again, until the file is complete.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]

from hub_server import Fault, HubProcess  # noqa: E402 - found by the line above
from pull_client import Client, unsound  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parent.parent / "docs" / "downloads.md"
REPO, FILE, SIZE = "somebody/Some-GGUF", "some-Q8_0.gguf", 20_000_000
POLICY = {"read_timeout": 0.3, "speed_window": 0.4, "max_attempts": 9}
PACE = 40_000_000  # bytes per second: sockets hold next to nothing, so that what was sent also arrived
HEADER = """| what goes wrong | times | right after one run | after a second | wrong under a name | sent twice, most |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


@dataclass
class Bench:
    """Everything that a run needs; `random` decides where it breaks.

    Attributes:
        lost: bytes that the client fetched twice, where the server cannot tell.
    """

    folder: Path
    hub: HubProcess
    client: Client
    random: random.Random
    lost: int = 0

    @property
    def cache(self) -> Path:
        """The library under test."""
        return self.folder / "hub"

    def offset(self) -> int:
        """Somewhere in the file."""
        return self.random.randrange(SIZE)

    def done(self) -> bool:
        """Whether the file has its name."""
        return any(self.cache.glob(f"models--*/snapshots/*/{FILE}"))

    def fetch(self) -> None:
        """Let the client fetch the file, or fail to."""
        self.client.fetch(self.cache, REPO, FILE, policy=POLICY)

    def sent(self) -> int:
        """Bytes of the file that the server sent since its log was emptied."""
        return sum(one["sent"] for one in self.hub.tell() if one["server"] == "cdn")


@dataclass
class Row:
    """One line of the table."""

    name: str
    runs: int = 0
    at_once: int = 0
    second: int = 0
    wrong: int = 0
    again: int = 0

    def __str__(self) -> str:
        again = f"{self.again / 1e6:.2f} MB" if self.again else "0"
        return f"| {self.name} | {self.runs} | {self.at_once} | {self.second} | {self.wrong} | {again} |"


def by(faults: Callable[[Bench], list[Fault]]) -> Callable[[Bench], None]:
    """The server does wrong, the client runs to its end."""

    def run(bench: Bench) -> None:
        bench.hub.tell(faults=faults(bench))
        bench.fetch()
        bench.hub.tell(faults=[])

    return run


def signalled(number: signal.Signals) -> Callable[[Bench], None]:
    """The client gets a signal at a random moment of its life."""

    def run(bench: Bench) -> None:
        with Client(environment(bench.hub)) as victim:
            victim.start(bench.cache, REPO, FILE)
            time.sleep(bench.random.uniform(0.0, 1.5))
            victim.send(number)
            victim.end()

    return run


def restarted(bench: Bench) -> None:
    """The server is killed in the middle and started again."""
    bench.client.start(bench.cache, REPO, FILE, policy={**POLICY, "max_attempts": 200})
    time.sleep(bench.random.uniform(0.0, 0.5))
    bench.hub.kill()
    bench.hub.start()
    bench.lost = max(event["fetched"] for event in bench.client.outcome()["events"]) - SIZE


def full(bench: Bench) -> None:
    """The disk has room for a part only; then there is a larger one."""
    disk = bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    room = bench.random.randrange(1_000_000, SIZE)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)], check=True)  # noqa: S607
    try:
        bench.client.fetch(disk / "hub", REPO, FILE, policy=POLICY, force=True)
        shutil.copytree(disk / "hub", bench.cache, symlinks=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607


def zeroed(bench: Bench) -> None:
    """After an interruption the end of the file holds zeros, as some file systems leave it when the power fails."""
    by(_fatal_cut)(bench)
    for part in bench.cache.glob("models--*/blobs/*.incomplete"):
        with part.open("r+b") as file:
            file.seek(bench.random.randrange(part.stat().st_size))
            file.write(bytes(part.stat().st_size - file.tell()))


def twice(bench: Bench) -> None:
    """Two processes want the file at the same time; one of them is killed."""
    with Client(environment(bench.hub)) as victim:
        victim.start(bench.cache, REPO, FILE)
        bench.client.start(bench.cache, REPO, FILE, policy=POLICY)
        time.sleep(bench.random.uniform(0.0, 1.2))
        victim.kill()
    bench.client.outcome()


def _cuts(bench: Bench) -> list[Fault]:
    return [Fault(cut=bench.random.randrange(SIZE // 4)) for _ in range(6)]


def _fatal_cut(bench: Bench) -> list[Fault]:
    return [Fault(cut=bench.offset()), *[Fault(cut=0)] * 20]


def _statuses(bench: Bench) -> list[Fault]:
    wait = {"Retry-After": "0"}
    broken = Fault(cut=bench.offset())
    return [broken, *(Fault(status=bench.random.choice([429, 500, 502, 503, 504]), headers=wait) for _ in range(5))]


BREAKAGES: dict[str, Callable[[Bench], None]] = {
    "connection cut, up to six times": by(_cuts),
    "connection cut, then nothing but refusals": by(_fatal_cut),
    "body ends early, cleanly": by(lambda bench: [Fault(short=bench.offset()), Fault(short=bench.offset() // 4)]),
    "Content-Length too large": by(lambda bench: [Fault(claim=bench.offset(), cut=bench.offset())]),
    "Content-Length too small": by(lambda bench: [Fault(claim=-bench.offset())]),
    "status 429, 500, 502, 503 or 504 after a cut": by(_statuses),
    "silence in the middle": by(lambda bench: [Fault(stall=bench.offset())]),
    "slow drip": by(lambda bench: [Fault(cut=bench.offset()), Fault(drip=20)]),
    "no ranges after a cut": by(lambda bench: [Fault(cut=bench.offset()), Fault(ranges=False)]),
    "another range than asked for, after a cut": by(lambda bench: [Fault(cut=bench.offset()), Fault(shift=9)]),
    "a byte flipped": by(lambda bench: [Fault(flip=bench.offset())]),
    "a byte flipped in an earlier run": by(
        lambda bench: [Fault(flip=5, cut=bench.random.randrange(6, SIZE)), *[Fault(cut=0)] * 20]
    ),
    "a byte flipped, and again in the second try": by(lambda bench: [Fault(flip=bench.offset()) for _ in range(2)]),
    "server killed and started again": restarted,
    "disk full": full,
    "zeros at the end after a loss of power": zeroed,
    "Ctrl-C at a random moment": signalled(signal.SIGINT),
    "kill -9 at a random moment": signalled(signal.SIGKILL),
    "kill -9 of one of two that want the same file": twice,
}


def environment(hub: HubProcess) -> dict[str, str]:
    """What the client needs."""
    return {**hub.environment, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}


def measure(name: str, breakage: Callable[[Bench], None], bench: Bench, right: Path, runs: int) -> Row:
    """Break and complete so many downloads."""
    row = Row(name)
    for _ in range(runs):
        bench.hub.tell(log=[])
        breakage(bench)
        row.wrong += len(unsound(bench.cache, [right]))
        complete = bench.done()
        if not complete:
            bench.fetch()
            row.wrong += len(unsound(bench.cache, [right]))
            row.second += bench.done()
        row.runs += 1
        row.at_once += complete
        row.again = max(row.again, bench.lost, bench.sent() - SIZE)
        for path in (bench.cache, bench.cache.with_name("hub.hermes")):
            shutil.rmtree(path, ignore_errors=True)
    return row


def rows(runs: int) -> Iterator[Row]:
    """The table, line by line."""
    with tempfile.TemporaryDirectory() as name:
        right = Path(name) / FILE
        right.write_bytes(random.Random(0).randbytes(SIZE))  # noqa: S311 - no secret
        with HubProcess({REPO: {FILE: right}}, storage=True, pace=PACE) as hub, Client(environment(hub)) as client:
            for title, breakage in BREAKAGES.items():
                if breakage is full and (sys.platform != "linux" or os.getuid()):
                    continue  # only root can mount a small disk
                bench = Bench(Path(name), hub, client, random.Random(title))  # noqa: S311 - as above
                yield measure(title, breakage, bench, right, runs)


def main() -> None:
    """Print the table, and write it if it is a long run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    table = HEADER
    for row in rows(options.runs):
        print(row, flush=True)
        table += f"{row}\n"
    if options.runs >= parser.get_default("runs"):
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(
            re.sub(r"\| what goes wrong .*?\n\n", lambda _: f"{table}\n", text, flags=re.DOTALL), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
