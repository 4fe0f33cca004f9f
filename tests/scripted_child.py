"""Programs that stand in the place of the engine's process, so that they can fail at the very moment that a test needs.

They are real processes that speak the same frames; only no model is behind them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from textwrap import dedent

Script = Callable[[str], None]

_PRELUDE = """
import json, os, signal, sys, time
sys.path[:] = json.loads(sys.argv[1])
from hermes_cli.child_process import pack, read_frames, write_frame
from hermes_cli.engine.embedded.messages import LoadRequest, pack_events
from hermes_cli.engine.protocol import Done, EngineStats, ModelInfo, TextEvent
from hermes_cli.errors import *
from hermes_cli.engine.request import GenerationRequest
def frames():
    for frame in read_frames(0):
        if frame.kind == "ping":
            send("pong")
        else:
            yield frame
    os._exit(0)
def send(kind, number=0, payload=None):
    write_frame(1, pack(kind, number, payload))
def prompt(frame):
    return frame.read(GenerationRequest).prompt
def events(number, *events):
    write_frame(1, pack_events([(number, event) for event in events]))
LOADED = ModelInfo(1024, 4, 1024, 10, 20, 300)
DONE = Done("stop", 3, 0, 2, 0.1, 0.2)
def loaded():
    send("loaded", 0, LOADED)
def polite(frame):
    if frame.kind == "close":
        os._exit(0)
    if frame.kind == "stats":
        send("stats", frame.number, EngineStats(steps=7, completion_tokens=2))
"""


def program(script: str) -> tuple[str, ...]:
    """The command of a child that does this.

    Args:
        script: Python; it has `frames()`, `prompt(frame)`, `send`, `events`, `loaded` and `polite` (which ends and counts when asked to).
    """
    return (sys.executable, "-I", "-S", "-c", _PRELUDE + dedent(script))


# Answers with its prompt.
ECHO = """
    for frame in frames():
        polite(frame)
        if frame.kind == "load":
            loaded()
        elif frame.kind == "generate":
            events(frame.number, *map(TextEvent, prompt(frame)), DONE)
"""

# Begins to answer, and notes who was cancelled in the file that CANCELLED names.
SLOW = """
    for frame in frames():
        polite(frame)
        if frame.kind == "load":
            loaded()
        elif frame.kind == "generate":
            events(frame.number, TextEvent("a"))
        elif frame.kind == "cancel":
            open(os.environ["CANCELLED"], "a").write(f"{frame.number}\\n")
"""
