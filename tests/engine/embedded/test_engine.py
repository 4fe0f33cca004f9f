"""The engine as chat and server see it; in the place of its child are programs that say what a test needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from engine_rig import PATH, PLAN, answer, children, engine, run, text_of
from scripted_child import ECHO, SLOW, Script, program

from hermes_cli.engine.embedded import child
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.engine.protocol import Done, ModelInfo, TextEvent
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import ContextFullError, EngineError, NotReadyError, UsageError


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Have children do this instead of running a model."""
    return lambda text: monkeypatch.setattr(child, "COMMAND", program(text))


# What it is


def test_whoever_uses_it_gets_neither_llama_cpp_nor_numpy() -> None:
    program = "import sys, hermes_cli.engine.embedded.engine; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()
    assert "hermes_cli.child_process" in found
    assert {"llama_cpp", "numpy", "llguidance", "psutil"}.isdisjoint({name.split(".")[0] for name in found})


def test_nothing_is_started_before_it_is_needed(script: Script) -> None:
    script(ECHO)

    async def test() -> None:
        async with engine() as e:
            assert (await e.stats()).state == "unloaded"
            assert children() == []
            assert text_of(await answer(e, "a", "b")) == "ab"
            stats = await e.stats()
            assert (stats.state, stats.requests, stats.steps, stats.restarts) == ("ready", 1, 7, 0)
            assert stats.rss_bytes > 1 << 20
        assert (await e.stats()).state == "closed"
        with pytest.raises(NotReadyError, match="the engine is closed"):
            await e.load()

    run(test())


def test_many_who_load_share_one_child(script: Script, tmp_path: Path) -> None:
    script(f"    open({str(tmp_path)!r} + '/' + str(os.getpid()), 'x').close()" + ECHO)

    async def test() -> None:
        async with engine() as e:
            found = await asyncio.gather(*(e.load() for _ in range(9)), *(answer(e, "x") for _ in range(9)))
            assert found[0] is found[8]
            assert isinstance(found[0], ModelInfo)
            assert 0 < found[0].load_seconds < 60

    run(test())
    assert len(list(tmp_path.iterdir())) == 1


def test_progress_is_relayed(script: Script) -> None:
    script("""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                for part in (0.0, 0.5, 1.0):
                    send("progress", 0, part)
                loaded()
    """)
    told: list[float] = []

    async def test() -> None:
        e = EmbeddedEngine(PATH, PLAN, progress=told.append)
        await e.load()
        await e.close()

    run(test())
    assert told == [0, 0.5, 1]


def test_the_child_is_told_what_to_load_and_how(script: Script, tmp_path: Path) -> None:
    script("""
        for frame in frames():
            polite(frame)
            request = frame.read(LoadRequest); path, plan, options = request.path, request.plan, request.options
            send("failed", 0, UsageError(f"{path} {plan.settings.context} {options.tags}", hint="so"))
    """)

    async def test() -> None:
        async with engine(EngineOptions(tags=("<a>",)), path=tmp_path / "é\udcff.gguf") as e:
            with pytest.raises(UsageError) as caught:
                await e.load()
            assert caught.value.message == f"{tmp_path}/é?.gguf 1024 ('<a>',)"
            assert caught.value.hint == "so"
            assert (await e.stats()).state == "unloaded"

    run(test())


# How requests go


def test_texts_that_nobody_reads_become_one(script: Script) -> None:
    script("""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                loaded()
            elif frame.kind == "generate" and prompt(frame) == ("much",):
                events(frame.number, TextEvent("first"))
                for _ in range(100):
                    events(frame.number, *[TextEvent("word ")] * 100)
                events(frame.number, DONE)
            elif frame.kind == "generate":
                events(frame.number, DONE)
    """)

    async def test() -> None:
        async with engine() as e:
            lazy = e.generate(GenerationRequest(("much",)))
            first = await anext(lazy)
            await answer(e, "another")  # came after all of it
            *rest, done = [event async for event in lazy]
            assert len(rest) <= 1
            texts = [event for event in (first, *rest) if isinstance(event, TextEvent)]
            assert "".join(event.text for event in texts) == "first" + "word " * 10_000
            assert sum(event.tokens for event in texts) == 10_001
            assert isinstance(done, Done)

    run(test())


def test_who_stops_reading_cancels(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(SLOW)
    cancelled = tmp_path / "cancelled"
    monkeypatch.setenv("CANCELLED", str(cancelled))

    async def test() -> None:
        async with engine() as e:
            first = e.generate(GenerationRequest(("x",)))
            await anext(first)
            await first.aclose()
            second = asyncio.ensure_future(answer(e, "y"))
            third = e.generate(GenerationRequest(("z",)))
            await anext(third)  # so the second was sent, too
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(third), 0.01)
            assert [event async for event in third] == []
            stats = await e.stats()
            assert (stats.requests, stats.cancelled, stats.failed) == (3, 3, 0)
        assert sorted(cancelled.read_text().split()) == ["1", "2", "3"]

    run(test())


def test_an_error_is_of_one_request_only(script: Script) -> None:
    script("""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                loaded()
            elif frame.kind == "tokenize":
                send("answer", frame.number, [1, 2]) if frame.read(tuple[str, bool])[1] else send("answer", frame.number, "x")
            elif frame.kind == "detokenize":
                send("failed", frame.number, UsageError("no token", hint="x"))
            elif frame.number == 1:
                events(frame.number, TextEvent("so far"), ContextFullError("full", hint="less"))
            elif frame.kind == "generate":
                events(frame.number, DONE)
    """)

    async def test() -> None:
        async with engine() as e:
            first = e.generate(GenerationRequest(("x",)))
            assert await anext(first) == TextEvent("so far")
            with pytest.raises(ContextFullError, match="full"):
                await anext(first)
            assert len(await answer(e, "y")) == 1
            assert await e.tokenize("x") == [1, 2]
            with pytest.raises(EngineError, match="between hermes and its child process came"):
                await e.tokenize("x", special=False)
            with pytest.raises(UsageError, match="no token"):
                await e.detokenize([5])
            with pytest.raises(UsageError, match="64 bits"):
                await answer_to(e, GenerationRequest(("x",), max_tokens=10**30))
            stats = await e.stats()
            assert (stats.requests, stats.failed, stats.cancelled) == (3, 2, 0)

    async def answer_to(e: EmbeddedEngine, request: GenerationRequest) -> None:
        async for _ in e.generate(request):
            pass

    run(test())
