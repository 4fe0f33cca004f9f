"""Frames, cut anywhere, hold what was put into them."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli import child_process, errors
from hermes_cli.child_process import Frame, FrameSplitter, pack
from hermes_cli.engine.embedded.messages import (
    DraftPlan,
    DryRunRequest,
    EngineOptions,
    LoadRequest,
    LoraFile,
    pack_events,
    read_events,
)
from hermes_cli.engine.protocol import (
    Done,
    EngineStats,
    Event,
    Logprob,
    ModelInfo,
    SequenceState,
    TextEvent,
    TokenLogprobs,
)
from hermes_cli.engine.request import GenerationRequest, ReasoningOptions, SamplingOptions
from hermes_cli.errors import ContextFullError, EngineError, HermesError, UsageError
from hermes_cli.planning.load_plan import LoadPlan
from hermes_cli.planning.memory import ContextSettings

PLAN = LoadPlan(ContextSettings(2048, slots=4, k_type="q8_0"), gpu_layers=3, tensor_split=(1.0, 2.0), threads=5)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
LOGPROBS = st.builds(
    TokenLogprobs,
    st.builds(Logprob, st.integers(0, 2**31), st.binary(max_size=8), st.floats(max_value=0, allow_nan=False)),
    st.lists(st.just(Logprob(7, b"\xff", -1.5)), max_size=3).map(tuple),
)
EVENTS = st.one_of(
    st.builds(TextEvent, TEXTS, st.integers(0, 99), st.lists(LOGPROBS, max_size=2).map(tuple)),
    st.builds(
        Done,
        st.sampled_from(["stop", "length"]),
        st.integers(0, 2**40),
        st.integers(0, 9),
        st.integers(0, 9),
        st.floats(0, 1e9),
        st.floats(0, 1e9),
        stop=st.none() | TEXTS,
        context_full=st.booleans(),
    ),
)


def frame(raw: bytes) -> Frame:
    (only,) = FrameSplitter().feed(raw)
    return only


def sent(request: GenerationRequest) -> GenerationRequest:
    return frame(pack("generate", 5, request)).read(GenerationRequest)


@given(st.lists(st.tuples(st.integers(0, 2**60), EVENTS), max_size=9))
def test_events_come_back(events: list[tuple[int, Event]]) -> None:
    assert read_events(frame(pack_events(events))) == events


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_frames_survive_being_cut_anywhere(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pack("kind", number, payload) for number, payload in enumerate(payloads))
    splitter, found, at = FrameSplitter(), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        found += splitter.feed(stream[at : at + size])
        at += size
    assert [(one.number, one.read(bytes)) for one in found] == list(enumerate(payloads))


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(("Hello",)),
        GenerationRequest((1, 2, 2**31)),
        GenerationRequest(
            ("a", "", "\U0001f600\0"),
            SamplingOptions(temperature=0, seed=3, logit_bias=((5, -float("inf")), (6, 2.5)), dry_breakers=("x",)),
            max_tokens=9,
            stops=("\n", "é"),
            grammar="{}",
            reasoning=ReasoningOptions(7, inside=True, line_ends=("</a>",)),
            top_logprobs=0,
            client="me",
            shift=True,
            keep=2,
            speculate=False,
        ),
    ],
)
def test_requests_come_back(request_: GenerationRequest) -> None:
    assert sent(request_) == request_


def test_half_characters_become_question_marks_as_the_tokenizer_has_it() -> None:
    assert sent(GenerationRequest(("a\ud800b", "c"), stops=("\udcff",))) == GenerationRequest(
        ("a?b", "c"), stops=("?",)
    )
    assert frame(pack("tokenize", 1, ("\ud800", True))).read(tuple[str, bool]) == ("?", True)


def test_a_number_that_no_machine_counts_to_is_an_error_of_use() -> None:
    with pytest.raises(UsageError, match="64 bits"):
        pack("generate", 1, GenerationRequest(("a",), max_tokens=10**30))


def test_a_value_out_of_range_is_an_error_of_use_on_the_other_side_too() -> None:
    raw = msgspec.to_builtins(GenerationRequest(("a",)))
    raw["sampling"]["temperature"] = -1
    with pytest.raises(UsageError, match=r"temperature is -1"):
        frame(pack("generate", 1, raw)).read(GenerationRequest)


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(
            tags=("<think>",),
            adapters=(LoraFile(Path("/a/\udcff.gguf"), 0.5), LoraFile(Path("b"))),
            draft=DraftPlan(Path("d.gguf"), PLAN),
            lookup=False,
            max_queue=3,
            keep_alive=1.5,
            prefixes=Path("p"),
            verbose=True,
        ),
    ],
)
def test_what_to_load_comes_back(options: EngineOptions) -> None:
    path = Path("/models/\udce9.gguf")  # names of files need not be UTF-8
    assert frame(pack("load", 0, LoadRequest(path, PLAN, options))).read(LoadRequest) == LoadRequest(
        path, PLAN, options
    )


def test_what_a_child_says_of_itself_comes_back() -> None:
    loaded = ModelInfo(
        1,
        2,
        3,
        4,
        5,
        6,
        {"default": "{{x}}"},
        {"temp": "0.5"},
        "<s>",
        "</s>",
        adds_bos=True,
        control=("<s>",),
        tags={"a": 1},
        others=(9,),
    )
    stats = EngineStats("ready", (SequenceState(1, 2, 3, 4),), queued=1, decode_seconds=0.5)
    assert frame(pack("loaded", 0, loaded)).read(ModelInfo) == loaded
    assert frame(pack("stats", 3, stats)).read(EngineStats) == stats


def test_every_error_comes_back_as_what_it_was() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HermesError)]
    assert len(kinds) > 9
    for kind in kinds:
        made = errors.restore(kind, {"message": "what é", "hint": "do this"})
        error = frame(pack("failed", 1, made)).error()
        assert (type(error), error.message, error.hint) == (kind, "what é", "do this")
        ((number, event),) = read_events(frame(pack_events([(8, error)])))
        assert isinstance(event, kind)
        assert number == 8


def test_errors_keep_what_they_carry() -> None:
    full = ContextFullError("full.", hint="less", prompt_tokens=9, context_length=8)
    heard = frame(pack("failed", 1, full)).error()
    assert isinstance(heard, ContextFullError)
    assert (heard.prompt_tokens, heard.context_length) == (9, 8)
    usage = frame(pack("failed", 1, UsageError("is odd.", field="stop", hint="h"))).error()
    assert isinstance(usage, UsageError)
    assert (str(usage), usage.message, usage.field, usage.reason) == ("stop is odd.", "stop is odd.", "stop", "is odd.")


@pytest.mark.parametrize("name", ["SystemExit", "Exception", "annotations", ""])
def test_no_other_class_is_made_into_an_error(name: str) -> None:
    with pytest.raises(EngineError, match=f"an error called '{name}'"):
        frame(pack("failed", 1, (name, {"message": "m", "hint": "h"}))).error()


@pytest.mark.parametrize(
    "raw", [b"\xff\xff\xff\xff", b"Hello, world!", struct.pack("<I", child_process.MAX_FRAME_BYTES + 1)]
)
def test_a_frame_that_is_too_long_is_refused_before_it_is_read(raw: bytes) -> None:
    with pytest.raises(EngineError, match=r"a frame of [\d,]+ bytes, where 268,435,456 is the most"):
        FrameSplitter().feed(raw)


def test_a_message_that_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "MAX_FRAME_BYTES", 100)
    with pytest.raises(UsageError, match=r"is too long\."):
        pack("generate", 1, GenerationRequest(("a" * 100,)))


def read_as_everything(raw: bytes) -> None:
    for found in FrameSplitter().feed(struct.pack("<I", len(raw)) + raw):
        for kind in (GenerationRequest, LoadRequest, DryRunRequest, EngineStats, tuple[str, bool]):
            with suppress(HermesError):
                found.read(kind)
        for read in (read_events, Frame.error):
            with suppress(HermesError):
                read(found)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXTS | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["prompt", "adapters", "a"]), inner),
    max_leaves=8,
)


@given(st.binary(max_size=60), st.text(max_size=5), ANYTHING)
def test_nonsense_is_an_error_and_nothing_else(raw: bytes, kind: str, payload: object) -> None:
    with suppress(EngineError):
        read_as_everything(raw)
    read_as_everything(msgspec.msgpack.encode((kind.encode("utf-8", "replace").decode(), 1, payload)))


def test_a_payload_of_another_kind_is_an_error() -> None:
    with pytest.raises(EngineError, match="missing required field `prompt`"):
        frame(pack("generate", 1, {})).read(GenerationRequest)
    with pytest.raises(EngineError, match=r"missing required field `path` - at `\$\.options\.adapters\[0\]`"):
        frame(pack("load", 0, {"path": b"p", "plan": PLAN, "options": {"adapters": [{}]}})).read(LoadRequest)
    with pytest.raises(EngineError, match="Path cannot be made of 1"):
        frame(pack("load", 0, {"path": 1, "plan": PLAN, "options": {}})).read(LoadRequest)
    for payload in (1, "x", [[1, 0]], [[1, 7, None]], [["a", 0, {}]]):
        with pytest.raises(EngineError):
            read_events(frame(pack("events", 0, payload)))


def test_a_change_of_plan_is_told() -> None:
    other = replace(PLAN, settings=replace(PLAN.settings, yarn_factor=4.0, yarn_original=1024, flash_attention=False))
    assert frame(pack("load", 0, LoadRequest(Path("x"), other, EngineOptions()))).read(LoadRequest).plan == other
