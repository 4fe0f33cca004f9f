"""What each command shows in terminals of 40, 80, 100 and 120 columns: tests/commands/screens/*.txt.

    python tools/screens.py            print all of them; with names only those
    python tools/screens.py --write    replace the files; look at the difference before you commit it

They are drawn by the commands themselves, on a simulated machine with a small library, so that they are the same on
every machine. `make screens` writes them, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from unittest.mock import patch

import pyte

from hermes_cli import paths
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.commands.app import run
from hermes_cli.console import Console
from hermes_cli.errors import HermesError
from hermes_cli.hardware.machine import Machine
from hermes_cli.hardware.simulate import simulate
from hermes_cli.prompting.messages import Message

FOLDER = Path(__file__).parent.parent / "tests" / "commands" / "screens"
WIDTHS = (40, 80, 100, 120)
LINES = 1000  # nothing leaves the screen
GIB = 1 << 30
CARD = ("--gpu", "2xRTX 3090", "--ram", "64G")
SCREENS: dict[str, tuple[str, ...]] = {
    "help": (),
    "list": ("list",),
    "list-older": ("list", "--older"),
    "list-words": ("list", "8b"),
    "list-all": ("list", "hermes-4:14b", "--all"),
    "list-installed": ("list", "--installed"),
    "recommend": ("recommend",),
    "recommend-agent": ("recommend", "--for", "agent", *CARD),
    "recommend-explain": ("recommend", "--explain"),
    "recommend-nothing": ("recommend", "hermes-4:405b"),
    "show": ("show", "hermes-3:8b"),
    "show-sources": ("show", "hermes-4:14b", "--sources"),
    "show-file": ("show", "demo"),
    "plan": ("plan", "hermes-3:8b"),
    "plan-gpus": ("plan", "hermes-4:70b:Q4_K_M", "--context", "65536", *CARD),
    "plan-too-large": ("plan", "hermes-4:405b"),
    "plan-engine": ("plan", "hermes-4:405b@bf16", "--gpu", "8xH100", "--nodes", "2"),
    "recommend-engine": ("recommend", "--gpu", "8xH200", "--users", "64"),
    "hardware": ("hardware",),
    "verify": ("verify",),
    "du": ("du",),
    "import": ("import", "--dry-run", "gguf"),
    "sessions": ("sessions",),
    "not-here": ("chat", "hermes-3:3b", "hi"),
    "ambiguous": ("show", "hermes3"),
    "mistyped": ("chat", "demo", "-c", "4096"),
}
MACHINE = Machine(
    devices=(),
    ram_total=32 * GIB,
    ram_available=24 * GIB,
    ram_bandwidth=50e9,
    ram_bandwidth_source="measured",
    cpu="AMD Ryzen 7 7700",
    cores=8,
    simd=("AVX2", "FMA"),
    os="Linux",
    disk_path="/models",
    disk_free=400 * GIB,
    backends=("cpu",),
)
DISK = SimpleNamespace(total=1000 * 10**9, used=600 * 10**9, free=400 * 10**9)
MEASURED = "00:00"  # in the line of a progress bar, whose speed is another each time


class _Screen:
    """A terminal for what writes in this process."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, columns: int) -> None:
        self.shown = pyte.Screen(columns, LINES)
        self.shown.set_mode(pyte.modes.LNM)  # as a terminal's driver does
        self._stream = pyte.Stream(self.shown)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("it takes text")
        self._stream.feed(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is shown at once."""

    def rows(self) -> list[str]:
        if self.shown.cursor.y == LINES - 1:
            raise ValueError("a screen has more lines than LINES")
        lines = (self.shown.buffer[at] for at in range(max(self.shown.buffer, default=-1) + 1))
        rows = ["".join(line[at].data for at in range(self.shown.columns)).rstrip() for line in lines]
        while rows and not rows[-1]:
            rows.pop()
        return rows


@contextmanager
def library() -> Iterator[Path]:
    """A folder, its path as long as the one that stands for it, with two models of the Hub and a file of one's own."""
    folder = Path(mkdtemp(prefix="hm-", dir="/tmp"))
    content = paths.asset("demo.gguf").read_bytes()
    try:
        _put(folder, "NousResearch/Hermes-3-Llama-3.1-8B-GGUF", "Hermes-3-Llama-3.1-8B.Q4_K_M.gguf", content)
        _put(folder, "somebody/Some-GGUF", "some-Q8_0.gguf", content[:-1] + b"x", stored=content)
        (folder / "gguf").mkdir()
        (folder / "gguf" / "gemma3-270m.gguf").write_bytes(content + bytes(32))
        for at, question in enumerate(("What is the weather in Tokyo and in Oslo tomorrow?", "Write a haiku on GGUF")):
            _talk(folder, f"{question.split()[-1].strip('?')}-{at}", question)
        yield folder
    finally:
        shutil.rmtree(folder)


def _talk(folder: Path, name: str, question: str) -> None:
    """Save a conversation, of a fixed time."""
    conversation = Conversation()
    made = patch("time.time", lambda: 1_760_000_000.0)
    with (
        made,
        closing(SessionFile.create(folder / "data" / "chats", conversation, "demo", lambda _: None, name)) as session,
    ):
        conversation.add(Message("user", question))
        conversation.add(Message("assistant", "It is beyond me."))
        path = session.path or folder
    os.utime(path, (1_760_000_000, 1_760_000_000))


def _put(folder: Path, repo: str, file: str, content: bytes, *, stored: bytes | None = None) -> None:
    """Put a file into the Hub's cache as huggingface_hub lays it out; `stored` if it is damaged."""
    cached = folder / "hub" / f"models--{repo.replace('/', '--')}"
    blob = cached / "blobs" / hashlib.sha256(content).hexdigest()
    name = cached / "snapshots" / ("1" * 40) / file
    for path in (blob, name):
        path.parent.mkdir(parents=True)
    blob.write_bytes(content if stored is None else stored)
    name.symlink_to(os.path.relpath(blob, name.parent))


@cache
def screen(name: str, columns: int, folder: Path) -> tuple[str, ...]:
    """Return the rows that a command shows, standard error among them."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HERMES_LLM_DATA_DIR": str(folder / "data"),
        "HERMES_LLM_CACHE_DIR": str(folder / "cache"),
        "HERMES_LLM_CONFIG_DIR": str(folder / "config"),
        "COLUMNS": str(columns),
        "TERM": "xterm-256color",
        "TZ": "UTC",
    }
    shown, before = _Screen(columns), Path.cwd()
    os.chdir(folder)
    machine = replace(simulate(MACHINE, gpu=[], vram=None, ram=None, apple=None, cpu_only=False), simulated=False)
    try:
        with (
            patch.dict(os.environ, environment, clear=True),
            patch.object(sys, "stdout", shown),
            patch.object(sys, "stderr", shown),
            patch.object(sys, "stdin", None),
            patch.object(sys, "argv", ["hermes"]),
            patch("hermes_cli.hardware.probe.probe", lambda **_: machine),
            patch("shutil.disk_usage", lambda _: DISK),
        ):
            try:
                run(SCREENS[name])
            except HermesError as error:
                Console().error(error)
            except SystemExit:
                pass
    finally:
        os.chdir(before)
    rows = [row.replace(str(folder), "/home/you/models") for row in shown.rows()]
    return tuple(row for row in rows if MEASURED not in row)


def page(name: str, folder: Path) -> str:
    """Return the screens of a command at all widths, as the file holds them."""
    parts = [f"--- {columns} columns\n" + "\n".join(screen(name, columns, folder)) + "\n" for columns in WIDTHS]
    return f"$ {' '.join(['hermes', *SCREENS[name]])}\n" + "".join(parts)


def main(arguments: list[str]) -> None:
    """Write the files, or print the screens that are named."""
    with library() as folder:
        if arguments == ["--write"]:
            FOLDER.mkdir(exist_ok=True)
            for path in set(FOLDER.glob("*.txt")) - {FOLDER / f"{name}.txt" for name in SCREENS}:
                path.unlink()
            for name in SCREENS:
                (FOLDER / f"{name}.txt").write_text(page(name, folder), encoding="utf-8")
        else:
            for name in arguments or SCREENS:
                sys.stdout.write(page(name, folder))


if __name__ == "__main__":
    main(sys.argv[1:])
