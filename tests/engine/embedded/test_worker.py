"""The engine's real process on the demo model: what it answers, what kills it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from textwrap import dedent

import psutil
import pytest
from conftest import eventually
from engine_rig import children, engine, open_files, pid_of, run, text_of
from gguf_bytes import entry, gguf, string, tensor
from hostile_gguf import hostile

from hermes_cli.engine.embedded.engine import EmbeddedEngine
from hermes_cli.engine.embedded.messages import DraftPlan, EngineOptions, LoraFile
from hermes_cli.engine.protocol import Done, Event, TextEvent
from hermes_cli.engine.request import GenerationRequest, SamplingOptions
from hermes_cli.errors import (
    ContextFullError,
    EngineDiedError,
    HermesError,
    IntegrityError,
    QueueFullError,
    UsageError,
)
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

PLAN = LoadPlan(ContextSettings(1024, slots=4), threads=1)
QUESTION = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
GREEDY = SamplingOptions(temperature=0)
ENDLESS = SamplingOptions(temperature=0, ignore_eos=True)
MIB = 1 << 20


def request(**values: object) -> GenerationRequest:
    return GenerationRequest((QUESTION,), **{"sampling": GREEDY, "max_tokens": 24, **values})  # type: ignore[arg-type]


async def events(of: EmbeddedEngine, asked: GenerationRequest) -> list[Event]:
    return [event async for event in of.generate(asked)]


# What it answers


def test_it_loads_and_answers(demo_path: Path) -> None:
    told: list[float] = []

    async def test() -> None:
        e = EmbeddedEngine(demo_path, PLAN, EngineOptions(tags=("<tool_call>", "<nothing>")), progress=told.append)
        loaded = await e.load()
        assert (loaded.context, loaded.slots, loaded.trained_context, loaded.vocabulary) == (1024, 4, 1024, 1024)
        assert loaded.sampling == {"temp": "0.000000"}
        assert (loaded.bos, loaded.eos) == ("<|im_start|>", "<|im_end|>")
        assert list(loaded.templates) == ["default"]
        assert list(loaded.tags) == ["<tool_call>"]
        assert set(loaded.tags.values()).isdisjoint(loaded.others)
        assert loaded.others
        assert set(loaded.control) > {"<|im_start|>", "<|im_end|>"}
        first = await events(e, request())
        assert len(first) > 5  # it streams
        assert "Hermes" in text_of(first)
        done = first[-1]
        assert isinstance(done, Done)
        assert sum(event.tokens for event in first if isinstance(event, TextEvent)) == done.completion_tokens == 24
        assert await events(e, request(max_tokens=0)) != []
        tokens = await e.tokenize("Hello é<|im_end|>")
        assert await e.detokenize(tokens) == "Hello é<|im_end|>".encode()
        assert len(await e.tokenize("<|im_end|>", special=False)) > 1
        stats = await e.stats()
        assert (stats.state, stats.requests, stats.failed, stats.queued, stats.running) == ("ready", 2, 0, 0, ())
        assert stats.rss_bytes > 10 * MIB
        assert stats.completion_tokens == 24
        await e.close()
        after = await e.stats()
        assert (after.state, after.completion_tokens, after.steps) == ("closed", 24, stats.steps)

    run(test())
    assert told == sorted(told)
    assert told[-1] == 1


def test_several_at_once_are_each_answered_as_alone(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            asked = [request(max_tokens=10 + number) for number in range(9)]
            alone = [text_of(await events(e, one)) for one in asked]
            together = await asyncio.gather(*(events(e, one) for one in asked))
            assert [text_of(found) for found in together] == alone

    run(test())


def test_what_is_wrong_with_a_request_is_its_own_error(demo_path: Path) -> None:
    wrong: dict[type[HermesError], GenerationRequest] = {
        UsageError: request(grammar="no grammar"),
        ContextFullError: GenerationRequest(("word " * 2000,)),
    }

    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            fine = asyncio.ensure_future(events(e, request(sampling=ENDLESS, max_tokens=100)))
            for kind, one in wrong.items():
                with pytest.raises(kind) as caught:
                    await events(e, one)
                assert caught.value.hint
            with pytest.raises(UsageError, match=r"token 1024"):
                await events(e, GenerationRequest((1024,)))
            with pytest.raises(UsageError, match=r"-1 is not a token; this model's go from 0 to 1,023"):
                await e.detokenize([1, -1])
            assert isinstance((await fine)[-1], Done)
            stats = await e.stats()
            assert (stats.requests, stats.failed) == (4, 3)

    run(test())


def test_who_cancels_frees_the_slot(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(path=demo_path, plan=LoadPlan(ContextSettings(1024, slots=1), threads=1)) as e:
            endless = e.generate(request(sampling=ENDLESS, max_tokens=None))
            await anext(endless)
            waiting = asyncio.ensure_future(events(e, request()))
            await endless.aclose()
            assert isinstance((await waiting)[-1], Done)
            stats = await e.stats()
            assert (stats.running, stats.cancelled) == ((), 1)

    run(test())


def test_a_queue_has_an_end(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(EngineOptions(max_queue=50), path=demo_path, plan=PLAN) as e:
            asked = [events(e, request(max_tokens=2)) for _ in range(1000)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            kinds = Counter(type(one) for one in outcomes)
            assert set(kinds) == {list, QueueFullError}
            assert kinds[list] >= 50
            stats = await e.stats()
            assert (stats.requests, stats.failed) == (1000, kinds[QueueFullError])
            assert isinstance((await events(e, request()))[-1], Done)

    run(test())


def test_a_storm_of_cancels(demo_path: Path) -> None:
    chance = random.Random(0)

    async def one(e: EmbeddedEngine) -> None:
        grammar = '{"grammars": [{"lark_grammar": "start: /[a-z ]+/"}]}' if chance.random() < 0.3 else None
        stream = e.generate(request(sampling=ENDLESS, max_tokens=200, grammar=grammar))
        task = asyncio.ensure_future(anext(stream))
        await asyncio.wait({task}, timeout=chance.uniform(0, 0.2))
        task.cancel()
        await asyncio.wait({task})
        await stream.aclose()

    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            await e.load()
            await asyncio.gather(*(one(e) for _ in range(200)))
            assert isinstance((await events(e, request()))[-1], Done)
            stats = await e.stats()
            assert (stats.running, stats.queued, stats.cancelled, stats.failed) == ((), 0, 200, 0)

    run(test())


def test_who_never_reads_holds_up_nobody(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            lazy = e.generate(request(sampling=ENDLESS, max_tokens=300))
            first = await anext(lazy)
            assert isinstance(first, TextEvent)
            for _ in range(3):
                assert isinstance((await events(e, request(max_tokens=100)))[-1], Done)
            while (await e.stats()).running:  # noqa: ASYNC110 - nobody announces the end to others
                await asyncio.sleep(0.01)
            rest, done = [event async for event in lazy]
            assert isinstance(rest, TextEvent)
            assert isinstance(done, Done)
            assert first.tokens + rest.tokens == done.completion_tokens == 300

    run(test())


def test_prompts_are_remembered_on_disk(demo_path: Path, tmp_path: Path) -> None:
    prompt = " ".join(f"number {number}" for number in range(80))

    async def cached(options: EngineOptions) -> int:
        async with engine(options, path=demo_path, plan=PLAN) as e:
            done = (await events(e, GenerationRequest((prompt,), GREEDY, max_tokens=2)))[-1]
            assert isinstance(done, Done)
            return done.cached_tokens

    options = EngineOptions(prefixes=tmp_path / "prefixes")
    assert run(cached(options)) == 0
    assert run(cached(options)) > 256
    assert run(cached(EngineOptions())) == 0
    (file,) = (tmp_path / "prefixes").glob("*/*/*.cache")
    file.write_bytes(file.read_bytes()[:1000])
    assert run(cached(options)) == 0


def test_a_second_model_guesses_and_changes_nothing(demo_path: Path, tmp_path: Path) -> None:
    async def said(options: EngineOptions) -> tuple[str, int, str]:
        async with engine(options, path=demo_path, plan=PLAN) as e:
            found = await events(e, request(max_tokens=60))
            done = found[-1]
            assert isinstance(done, Done)
            return text_of(found), done.accepted_tokens, (await e.load()).draft

    plain, accepted, name = run(said(EngineOptions(lookup=False)))
    assert (accepted, name) == (0, "")
    draft = EngineOptions(lookup=False, draft=DraftPlan(demo_path, PLAN))
    guessed, accepted, name = run(said(draft))
    assert (guessed, name) == (plain, "demo.gguf")
    assert accepted > 0
    other = EngineOptions(draft=DraftPlan(hostile(tmp_path / "other.gguf"), PLAN))
    with pytest.raises(IntegrityError, match=r"cannot load .*other\.gguf"):
        run(said(other))


def adapter(path: Path) -> Path:
    """A LoRA adapter for the demo model that changes one matrix at random."""
    rank, inner, outer = 4, 512, 256
    chance = random.Random(0)
    entries = [
        entry("general.architecture", 8, string("llama")),
        entry("general.type", 8, string("adapter")),
        entry("adapter.type", 8, string("lora")),
        entry("adapter.lora.alpha", 6, struct.pack("<f", rank)),
    ]
    size = rank * inner * 4
    tensors = [
        tensor("blk.5.ffn_down.weight.lora_a", (inner, rank)),
        tensor("blk.5.ffn_down.weight.lora_b", (rank, outer), offset=size),
    ]
    count = rank * (inner + outer)
    path.write_bytes(gguf(entries, tensors, struct.pack(f"<{count}f", *(chance.gauss(0, 1) for _ in range(count)))))
    return path


def test_adapters_change_the_answer_as_much_as_their_scale_says(demo_path: Path, tmp_path: Path) -> None:
    path = adapter(tmp_path / "lora.gguf")

    async def said(*adapters: LoraFile) -> str:
        async with engine(EngineOptions(adapters=adapters), path=demo_path, plan=PLAN) as e:
            return text_of(await events(e, request()))

    plain = run(said())
    assert run(said(LoraFile(path, 0.0))) == plain
    assert run(said(LoraFile(path, 5.0))) != plain


def test_a_file_that_is_no_adapter_is_refused(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(EngineOptions(adapters=(LoraFile(demo_path),)), path=demo_path, plan=PLAN) as e:
            with pytest.raises(IntegrityError, match=r"cannot load the LoRA adapter .*demo\.gguf"):
                await e.load()

    run(test())


# What kills it


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_signal_in_the_middle_of_an_answer(demo_path: Path, number: signal.Signals) -> None:
    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            before = text_of(await events(e, request()))
            # Another prompt: one that was there when a process crashed is not tried again.
            streams = [e.generate(GenerationRequest(("Count.",), ENDLESS, shift=True)) for _ in range(6)]
            await asyncio.gather(*(anext(stream) for stream in streams[:4]))
            os.kill(await pid_of(e), number)
            outcomes = await asyncio.gather(*(consumed(stream) for stream in streams[:4]), return_exceptions=True)
            assert [type(one) for one in outcomes] == [EngineDiedError] * 4
            assert str(demo_path) in str(outcomes[0])
            assert text_of(await events(e, request())) == before
            stats = await e.stats()
            assert (stats.failed, stats.restarts) == (4, 1)
            assert stats.completion_tokens >= 48  # what was counted before is still there

    run(test())


async def consumed(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        pass


def test_a_file_that_is_cut_short_while_it_is_in_use(demo_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.gguf"
    shutil.copy(demo_path, path)

    async def test() -> None:
        async with engine(path=path, plan=PLAN) as e:
            await events(e, request())
            os.truncate(path, 100_000)
            with pytest.raises(EngineDiedError, match=r"copy\.gguf .*; the file has changed since it was loaded\."):
                await events(e, request(sampling=ENDLESS, max_tokens=50))
            with pytest.raises(IntegrityError, match=r"cannot load .*copy\.gguf"):
                await events(e, request())
            shutil.copy(demo_path, path)
            assert isinstance((await events(e, request()))[-1], Done)

    run(test())


def test_files_that_are_no_models(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.gguf"
    nothing.write_bytes(b"hello" * 1000)
    refused = {
        nothing: r"cannot load .*nothing\.gguf",
        tmp_path / "nowhere.gguf": r"cannot load .*nowhere\.gguf",
        hostile(tmp_path / "abort.gguf", llama__rope__scaling__type="nonsense"): r"gives up over .*GGML_ASSERT\(.*rope",
    }

    async def test(path: Path, said: str) -> None:
        async with engine(path=path, plan=PLAN) as e:
            for _ in range(2):
                with pytest.raises(IntegrityError, match=said) as caught:
                    await e.load()
                assert caught.value.hint

    for path, said in refused.items():
        run(test(path, said))


# What it leaves behind

PARENT = """
    import asyncio, sys, psutil
    from pathlib import Path
    from hermes_cli.engine.embedded.engine import EmbeddedEngine
    from hermes_cli.engine.request import GenerationRequest, SamplingOptions
    from hermes_cli.planning.memory import ContextSettings
    from hermes_cli.planning.load_plan import LoadPlan

    async def main():
        engine = EmbeddedEngine(Path(sys.argv[1]), LoadPlan(ContextSettings(1024, slots=4), threads=1))
        await engine.load()
        print(*(child.pid for child in psutil.Process().children()), flush=True)
        while True:
            async for _ in engine.generate(GenerationRequest(("Hello",), SamplingOptions(ignore_eos=True))):
                pass

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "asleep",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process that is stopped")
        ),
    ],
)
def test_no_orphan_survives_its_parent(demo_path: Path, *, asleep: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", dedent(PARENT), demo_path], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.2)  # it is in the middle of its work
        if asleep:
            child.suspend()
        parent.kill()
        parent.wait()
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)  # whose, is up to init


def test_loading_and_unloading_brings_the_memory_back(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            used, files = [], []
            for _ in range(10):
                await events(e, request(max_tokens=3))
                await e.unload()
                assert children() == []
                used.append(psutil.Process().memory_info().rss)
                files.append(open_files())
            assert files[-1] == files[0]
            assert used[-1] - used[2] < MIB
            assert (await e.stats()).requests == 10

    run(test())


def test_ctrl_c_is_the_parent_s_business(demo_path: Path) -> None:
    async def test() -> None:
        async with engine(path=demo_path, plan=PLAN) as e:
            pid = await pid_of(e)
            stream = e.generate(request(sampling=ENDLESS, max_tokens=200))
            await anext(stream)
            os.kill(pid, signal.SIGINT)
            assert isinstance([event async for event in stream][-1], Done)
            assert await pid_of(e) == pid

    run(test())
