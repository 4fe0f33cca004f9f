"""Children that fail in every way, and how engines end them."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import psutil
import pytest
from conftest import HANG
from engine_rig import PATH, PLAN, answer, children, engine, pid_of, run, text_of, until
from scripted_child import ECHO, SLOW, Script, program

from hermes_cli.engine import restart_backoff
from hermes_cli.engine.embedded import child
from hermes_cli.engine.embedded import worker_session as life
from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.engine.protocol import TextEvent
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import EngineDiedError, EngineError, IntegrityError, NotReadyError, UsageError


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Have children do this instead of running a model."""
    return lambda text: monkeypatch.setattr(child, "COMMAND", program(text))


# Deaths

DEATHS = {
    "os.kill(os.getpid(), signal.SIGKILL)": r"some\.gguf was killed, most likely because memory ran out\.",
    "os.kill(os.getpid(), signal.SIGSEGV)": r"was ended \(Segmentation fault\): the last line\.",
    "os.kill(os.getpid(), signal.SIGBUS)": r"could not read the model any more, because the file was cut short",
    "print('x.cpp:1: GGML_ASSERT(a == b) failed', file=sys.stderr, flush=True); os.abort()": (
        r"was ended \(Aborted\): GGML_ASSERT\(a == b\) failed\."
    ),
    "os._exit(3)": r"ended with code 3: the last line\.",
    "raise RuntimeError('a bug')": r"ended with code 1: RuntimeError: a bug\.",
    "os.write(1, b'Hello, world!')": r"came a frame of 1,819,043,144 bytes",
    "send('dance')": r"came a frame of kind 'dance'",
    "send('events', 0, 1)": r"came b'\\x01' \(Expected `array`, got `int`\)",
    "os.write(1, bytes([1, 0, 0, 0, 193]))": r"came b'\\xc1'",
    "os.close(1); signal.pause()": r"came the end of all answers, while it went on",
}


@pytest.mark.parametrize("cause", DEATHS)
def test_a_death_ends_all_requests_with_the_cause_and_the_next_one_works(
    script: Script, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    # Only what goes on without an output has to be waited for.
    monkeypatch.setattr(child, "END_SECONDS", 0.1 if "pause" in cause else HANG)
    script(f"""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                loaded()
            elif frame.kind == "generate" and prompt(frame) == ("die",):
                print("the last line", file=sys.stderr, flush=True)
                {cause}
            elif frame.kind == "generate":
                events(frame.number, TextEvent("still here"))
                if prompt(frame) == ("live",):
                    events(frame.number, DONE)
    """)

    async def test() -> None:
        async with engine() as e:
            bystander = e.generate(GenerationRequest(("wait",)))
            assert await anext(bystander) == TextEvent("still here")
            with pytest.raises(EngineError, match=DEATHS[cause]) as caught:
                await answer(e, "die")
            assert caught.value.hint
            with pytest.raises(EngineError, match=DEATHS[cause]) as other:
                await anext(bystander)
            assert other.value is not caught.value
            assert (await e.stats()).state == "dead"
            assert text_of(await answer(e, "live")) == "still here"
            stats = await e.stats()
            assert (stats.requests, stats.failed, stats.restarts, stats.state) == (3, 2, 1, "ready")

    run(test())


def test_what_a_child_said_before_it_died_is_not_lost(script: Script) -> None:
    script("""
        for frame in frames():
            if frame.kind == "load":
                loaded()
            elif frame.kind == "generate":
                send("stats", 0, EngineStats(prompt_tokens=3, completion_tokens=2))
                events(frame.number, TextEvent("last "), TextEvent("words"))
                os.kill(os.getpid(), signal.SIGKILL)
    """)

    async def test() -> None:
        async with engine() as e:
            for deaths in (1, 2):
                stream = e.generate(GenerationRequest(("x",)))
                assert text_of([await anext(stream)]) == "last words"
                with pytest.raises(EngineDiedError):
                    await anext(stream)
                stats = await e.stats()
                assert (stats.prompt_tokens, stats.completion_tokens) == (3 * deaths, 2 * deaths)

    run(test())


def test_whoever_asks_something_else_is_told_too(script: Script) -> None:
    script("""
        for frame in frames():
            if frame.kind == "load":
                loaded()
            elif frame.kind != "stats":
                os.kill(os.getpid(), signal.SIGKILL)
    """)

    async def test() -> None:
        async with engine() as e:
            await e.load()
            outcomes = await asyncio.gather(e.tokenize("x"), e.detokenize([1]), e.stats(), return_exceptions=True)
            assert [type(one).__name__ for one in outcomes] == ["EngineDiedError", "EngineDiedError", "EngineStats"]

    run(test())


def test_deaths_in_a_row_make_it_wait(script: Script) -> None:
    script("""
        for frame in frames():
            if frame.kind == "load":
                os.kill(os.getpid(), signal.SIGKILL)
    """)

    async def test() -> None:
        async with engine(delays=(0.0, HANG)) as e:
            for _ in range(2):
                with pytest.raises(EngineDiedError, match="killed"):
                    await e.load()
            third = asyncio.ensure_future(e.load())
            assert not (await asyncio.wait({third}, timeout=0.2))[0]
            third.cancel()
        async with engine(delays=(0.0, 0.2, 0.3)) as e:
            waited = []
            for _ in range(5):
                started = time.monotonic()
                with pytest.raises(EngineDiedError, match="killed"):
                    await e.load()
                waited.append(time.monotonic() - started)
            assert (await e.stats()).restarts == 4
            assert waited[2] > 0.2
            assert waited[3] > 0.3
            assert waited[4] > 0.3

    run(test())


def test_good_work_makes_up_for_earlier_deaths(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_backoff, "RELIABLE_SECONDS", 0.0)
    script("""
        for frame in frames():
            if frame.kind == "load":
                loaded()
            elif frame.kind == "generate":
                os.kill(os.getpid(), signal.SIGKILL)
    """)

    async def test() -> None:
        async with engine(delays=(0.0, 60.0)) as e:
            for _ in range(4):
                with pytest.raises(EngineDiedError):
                    await answer(e, "x")

    run(test())


def test_waiting_for_the_next_start_can_be_broken_off(script: Script) -> None:
    script("os.abort()")

    async def test() -> None:
        async with engine(delays=(60.0,)) as e:
            with pytest.raises(EngineDiedError):
                await e.load()
            waiting = asyncio.ensure_future(e.load())
            await asyncio.sleep(0)
            await e.unload()
            with pytest.raises(NotReadyError, match="unloaded meanwhile"):
                await waiting
            asking = asyncio.ensure_future(answer(e, "x"))
            await asyncio.sleep(0)
            await e.close()
            with pytest.raises(NotReadyError, match="closed"):
                await asking

    run(test())


def test_an_assertion_while_loading_is_about_the_file(script: Script) -> None:
    script("print('GGML_ASSERT(x) failed', file=sys.stderr, flush=True); os.abort()")

    async def test() -> None:
        async with engine() as e:
            with pytest.raises(IntegrityError, match=r"gives up over some\.gguf: GGML_ASSERT\(x\) failed"):
                await e.load()

    run(test())


def test_a_program_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMMAND", ("/nowhere/python",))

    async def test() -> None:
        async with engine() as e:
            with pytest.raises(EngineError, match="no process can be started for the engine: No such file"):
                await e.load()

    run(test())


def test_a_file_that_changed_meanwhile_is_named(script: Script, tmp_path: Path) -> None:
    script("""
        for frame in frames():
            if frame.kind == "load":
                loaded()
            else:
                os.kill(os.getpid(), signal.SIGBUS)
    """)
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(100))

    async def test() -> None:
        async with engine(path=path) as e:
            await e.load()
            path.write_bytes(bytes(50))
            with pytest.raises(EngineDiedError, match=r"model\.gguf could not .*; the file has changed since it was"):
                await answer(e, "x")

    run(test())


def test_frames_may_come_byte_by_byte(script: Script) -> None:
    script("""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                loaded()
            elif frame.kind == "generate":
                for byte in pack_events([(frame.number, TextEvent("slow")), (frame.number, DONE)]):
                    os.write(1, bytes([byte]))
    """)

    async def test() -> None:
        async with engine() as e:
            assert text_of(await answer(e, "x")) == "slow"

    run(test())


# The end

DEAF = """
    for frame in frames():
        if frame.kind == "load":
            loaded()
        elif frame.kind == "close":
            signal.pause()
"""


def test_a_child_that_does_not_end_is_killed(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "END_SECONDS", 0.3)
    script(DEAF)

    async def test() -> None:
        async with engine() as e:
            pid = await pid_of(e)
            asking = asyncio.ensure_future(answer(e, "x"))
            await asyncio.sleep(0)
            started = time.monotonic()
            await e.unload()
            assert time.monotonic() - started > 0.3
            assert not psutil.pid_exists(pid)
            with pytest.raises(NotReadyError, match="unloaded meanwhile"):
                await asking
            assert (await e.stats()).state == "unloaded"

    run(test())


def test_a_child_that_saves_something_is_given_time(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "END_SECONDS", HANG)
    script("""
        for frame in frames():
            if frame.kind == "load":
                loaded()
            elif frame.kind == "close":
                send("saving")
                if "ENDLESS" in os.environ:
                    signal.pause()
                send("stats", 0, EngineStats(steps=5))
                os._exit(0)
    """)

    async def test() -> None:
        async with engine() as e:
            await e.load()
            await e.unload()
            assert (await e.stats()).steps == 5
            monkeypatch.setenv("ENDLESS", "1")
            monkeypatch.setattr(life, "SAVING_SECONDS", 0.1)
            await e.load()
            await e.unload()
            assert children() == []

    run(test())


def test_unloading_is_no_death(script: Script) -> None:
    script(ECHO)

    async def test() -> None:
        async with engine(delays=(60.0,)) as e:
            pids = set()
            for _ in range(3):
                pids.add(await pid_of(e))
                await e.unload()
                await e.unload()
            assert len(pids) == 3
            assert text_of(await answer(e, "again")) == "again"
            assert (await e.stats()).restarts == 0
            await e.close()
            await e.close()
            await e.unload()

    run(test())


def test_a_request_that_comes_while_it_unloads_loads_again(script: Script) -> None:
    script(ECHO)

    async def test() -> None:
        async with engine() as e:
            await e.load()
            unloading = asyncio.ensure_future(e.unload())
            await asyncio.sleep(0)
            assert text_of(await answer(e, "a")) == "a"
            await unloading

    run(test())


def test_unloading_while_it_loads(script: Script) -> None:
    script("for frame in frames(): polite(frame)")

    async def test() -> None:
        async with engine() as e:
            loading = asyncio.ensure_future(e.load())
            await until(children)
            assert (await e.stats()).state == "loading"
            await e.unload()
            with pytest.raises(NotReadyError, match="unloaded meanwhile"):
                await loading

    run(test())


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_who_is_not_needed_any_more_goes(script: Script, seconds: float) -> None:
    script(ECHO)

    async def test() -> None:
        async with engine(EngineOptions(keep_alive=seconds)) as e:
            await e.load()
            process = psutil.Process(await pid_of(e))
            asked = time.monotonic()
            await answer(e, "a")
            await until(lambda: not process.is_running())
            assert time.monotonic() - asked >= seconds
            assert (await e.stats()).state == "unloaded"
            assert text_of(await answer(e, "again")) == "again"
            assert (await e.stats()).restarts == 0

    run(test())


def test_who_works_is_needed(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANCELLED", str(tmp_path / "cancelled"))
    script(SLOW)

    async def test() -> None:
        async with engine(EngineOptions(keep_alive=0.1)) as e:
            stream = e.generate(GenerationRequest(("x",)))
            await anext(stream)
            other = e.generate(GenerationRequest(("y",)))
            await anext(other)
            await other.aclose()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(nothing := asyncio.ensure_future(anext(stream))), 0.5)
            assert (await e.stats()).state == "ready"
            nothing.cancel()

    run(test())


def test_an_engine_that_nobody_closes_leaves_nothing(script: Script) -> None:
    script(ECHO)

    async def test() -> int:
        return await pid_of(EmbeddedEngine(PATH, PLAN))

    pid = asyncio.run(test())
    assert not psutil.pid_exists(pid)


def test_what_it_writes_to_standard_error_is_shown_if_asked_for(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script("""
        print("llama says é", file=sys.stderr, flush=True)
        for frame in frames():
            polite(frame)
            loaded()
    """)

    async def test(*, verbose: bool) -> None:
        async with engine(EngineOptions(verbose=verbose)) as e:
            await e.load()

    run(test(verbose=False))
    assert capsys.readouterr().err == ""
    run(test(verbose=True))
    assert capsys.readouterr().err == "llama says é\n"


CRASHES = """
    for frame in frames():
        polite(frame)
        if frame.kind == "load":
            loaded()
        elif frame.kind == "generate" and prompt(frame) != ("wait",):
            if prompt(frame) == ("bad",):
                os.kill(os.getpid(), signal.SIGSEGV)
            events(frame.number, DONE)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
def test_a_prompt_that_ended_an_engine_is_not_tried_again(script: Script) -> None:
    script(CRASHES)

    async def test() -> None:
        async with engine(delays=(HANG,)) as e:  # that nobody waits: it is known why the process ended
            with pytest.raises(EngineDiedError, match="Segmentation fault"):
                await answer(e, "bad")
            with pytest.raises(UsageError, match="not tried again"):
                await answer(e, "bad")
            assert await answer(e, "good")

    run(test())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
def test_whoever_was_beside_it_is_not_to_blame(script: Script) -> None:
    script(CRASHES)

    async def test() -> None:
        async with engine(delays=(0.0,)) as e:
            waits, crashes = await asyncio.gather(answer(e, "wait"), answer(e, "bad"), return_exceptions=True)
            assert isinstance(waits, EngineDiedError)
            assert isinstance(crashes, EngineDiedError)
            with pytest.raises(EngineDiedError):  # either may have been it
                await answer(e, "bad")
            with pytest.raises(UsageError, match="not tried again"):
                await answer(e, "bad")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer(e, "wait"), 0.5)
            assert await answer(e, "good")

    run(test())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
def test_an_engine_that_is_stopped(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "PING_SECONDS", 0.2)
    monkeypatch.setattr(life, "MAX_SILENT", 5)
    script("""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                loaded()
            elif frame.kind == "generate":
                if prompt(frame) == ("stop",):
                    os.kill(os.getpid(), signal.SIGSTOP)
                events(frame.number, DONE)
    """)

    async def test() -> None:
        async with engine() as e:
            with pytest.raises(EngineDiedError, match="did not answer for 1 seconds"):
                await answer(e, "stop")
            monkeypatch.setattr(life, "MAX_SILENT", 1500)  # on a busy machine the next one may be silent for a second
            assert await answer(e, "go on")

    run(test())


def test_children_inherit_no_keys(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HERMES_LLM_API_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script("""
        for frame in frames():
            polite(frame)
            if frame.kind == "load":
                loaded()
            elif frame.kind == "tokenize":
                names = ["HF_TOKEN", "HERMES_LLM_API_KEY", "OMP_NUM_THREADS"]
                send("answer", frame.number, [int(name in os.environ) for name in names])
    """)

    async def test() -> None:
        async with engine() as e:
            assert await e.tokenize("") == [0, 0, 1]

    run(test())
