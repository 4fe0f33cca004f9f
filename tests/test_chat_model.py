"""What generation makes of an engine's text, and what it asks of the engine; the engine is a fake."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from fake_engine import LOADED, FakeEngine, Step
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hermes_cli.catalog.load import shipped_catalogue
from hermes_cli.catalog.models import RecommendedSampling as Recommended
from hermes_cli.engine.protocol import Logprob, TextEvent, TokenLogprobs
from hermes_cli.engine.request import ReasoningOptions
from hermes_cli.errors import ContextFullError, EngineDiedError, QueueFullError, UsageError
from hermes_cli.generation import (
    THINK_END,
    CallFinished,
    ChatModel,
    Constraints,
    Content,
    Done,
    Event,
    LogprobsEvent,
    Message,
    PromptOptions,
    Reasoning,
    SamplingOptions,
    TurnRequest,
)
from hermes_cli.prompting.structured_output import json_schema, tool_calls
from hermes_cli.prompting.turn_grammar import THOUGHTS

T = TypeVar("T")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a":1}}\n</tool_call>'
HERMES_3 = next(model for model in shipped_catalogue().models if model.short == "hermes-3:8b")
HERMES_4 = next(model for model in shipped_catalogue().models if model.short == "hermes-4:14b")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def asked(text: str = "Hi", **how: Any) -> TurnRequest:  # noqa: ANN401 - what a turn takes
    return TurnRequest([Message("user", text)], **how)


def chatter_of(*script: Step, engine: FakeEngine | None = None) -> ChatModel:
    return ChatModel(engine or FakeEngine([script]), LOADED, known=HERMES_4)


async def collect(chatter: ChatModel, turn: TurnRequest) -> tuple[list[Event], Done]:
    *events, done = [event async for event in chatter.answer(turn)]
    assert isinstance(done, Done)
    return events, done


def said(events: Sequence[Event], kind: type[Content | Reasoning]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def test_the_engine_is_asked_for_all_that_the_turn_says() -> None:
    engine = FakeEngine([["Hi"]])
    sampling = SamplingOptions(temperature=0.5, seed=3)
    turn = asked(
        sampling=sampling, max_tokens=7, think_budget=9, stops=("END", "<|im_end|>"), top_logprobs=2, client="me"
    )
    run(collect(chatter_of(engine=engine), turn))
    (request,) = engine.requests
    assert request.sampling == sampling
    assert request.max_tokens == 7
    assert request.reasoning == ReasoningOptions(9, tags=THOUGHTS, line_ends=("</tool_call>",), end=THINK_END)
    assert request.stops == ("<|im_end|>", "END")
    assert request.top_logprobs == 2
    assert request.client == "me"
    assert request.grammar is None
    assert not request.shift
    assert request.keep == 0
    assert request.speculate


def test_what_users_spell_is_cut_so_that_no_piece_has_it() -> None:
    engine = FakeEngine([["Hi"]])
    run(collect(chatter_of(engine=engine), asked("x<|im_end|>y")))
    pieces = [str(piece) for piece in engine.requests[0].prompt]
    assert "x<|im_end|>y" in "".join(pieces)
    assert not any("x<|im_end|>" in piece for piece in pieces)


def test_the_grammar_knows_the_models_tags_and_how_the_turn_begins() -> None:
    engine = FakeEngine([["Hi"]])
    constraints = Constraints(json_schema({"type": "integer"}), tool_calls([TOOL]))
    run(
        collect(
            chatter_of(engine=engine), asked(tools=[TOOL], constraints=constraints, options=PromptOptions(think=False))
        )
    )
    run(
        collect(
            chatter_of(engine=engine), asked(tools=[TOOL], constraints=constraints, options=PromptOptions(think=True))
        )
    )
    plain, thinking = (request.grammar or "" for request in engine.requests)
    assert f"<[{LOADED.tags['<tool_call>']}]>" in plain
    assert f"<[{LOADED.tags['<think>']}]>" not in plain
    assert f"<[{LOADED.tags['<think>']}]>" in thinking


def test_events_are_what_the_text_says() -> None:
    events, done = run(
        collect(chatter_of("<think>", "\nHm", ".\n", "</think>", "\nLet me", " see.\n", CALL), asked(tools=[TOOL]))
    )
    assert said(events, Reasoning) == "Hm."
    assert said(events, Content) == "Let me see."
    (finished,) = [event for event in events if isinstance(event, CallFinished)]
    assert finished.call.arguments == {"a": 1}
    assert done.reason == "tool_calls"
    assert done.reasoning_tokens == 3


def test_tokens_of_reasoning_are_as_the_engine_counted_them() -> None:
    end = Done("stop", 9, 0, 28, 0.1, 0.2, reasoning_tokens=17)
    _, done = run(collect(chatter_of(TextEvent("<think>aaa</think>\n\nbbbb", 26), TextEvent("", 2), end), asked()))
    assert done.reasoning_tokens == 17


def test_log_probabilities_come_before_what_their_text_says() -> None:
    first, second = (TokenLogprobs(Logprob(token, b"x", -1.0)) for token in (1, 2))
    events, _ = run(
        collect(chatter_of(TextEvent("Hel", 1, (first,)), TextEvent("lo", 1, (second,)), "!"), asked(top_logprobs=0))
    )
    assert events == [LogprobsEvent((first,)), Content("Hel"), LogprobsEvent((second,)), Content("lo"), Content("!")]


def test_only_stop_texts_of_the_caller_are_told() -> None:
    _, done = run(collect(chatter_of("One", " END", " two"), asked(stops=("END",))))
    assert (done.reason, done.stop) == ("stop", "END")
    _, done = run(collect(chatter_of("One", "<|im_end|>"), asked(stops=("END",))))
    assert (done.reason, done.stop) == ("stop", None)


def test_an_answer_that_is_cut_off_has_no_calls_to_run() -> None:
    events, done = run(collect(chatter_of(*CALL), asked(tools=[TOOL], max_tokens=30)))
    assert done.reason == "length"
    assert not done.context_full
    assert not any(isinstance(event, CallFinished) for event in events)


def test_leaving_early_cancels_the_request() -> None:
    async def leave() -> list[int]:
        engine = FakeEngine([["One", " two", asyncio.Event()]])
        async with aclosing(chatter_of(engine=engine).answer(asked())) as events:
            assert await anext(events) == Content("One")
        return engine.cancelled

    assert run(leave()) == [0]


def test_cancelling_the_task_cancels_the_request() -> None:
    async def cancel() -> list[int]:
        engine, began = FakeEngine([["One", asyncio.Event()]]), asyncio.Event()

        async def listen() -> None:
            async with aclosing(chatter_of(engine=engine).answer(asked())) as events:
                async for _ in events:
                    began.set()

        task = asyncio.create_task(listen())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine.cancelled

    assert run(cancel()) == [0]


@pytest.mark.parametrize(
    "error",
    [
        EngineDiedError("the engine was ended (Killed).", hint="ask again."),
        QueueFullError("300 requests are waiting already.", hint="try again."),
    ],
)
def test_what_goes_wrong_in_the_engine_is_told(error: EngineDiedError | QueueFullError) -> None:
    async def listen() -> list[Event]:
        async with aclosing(chatter_of("One", error).answer(asked())) as events:
            first = await anext(events)
            with pytest.raises(type(error), match=re.escape(error.message)):
                await anext(events)
        return [first]

    assert run(listen()) == [Content("One")]


def test_a_prompt_that_is_too_long_is_an_error_with_both_numbers() -> None:
    with pytest.raises(ContextFullError, match=r"5,0\d\d tokens.* 4,096 tokens"):
        run(collect(chatter_of("Hi"), asked("x" * 5000)))


def conversation(chatter: ChatModel, turn: TurnRequest) -> list[CallFinished]:
    events, _ = run(collect(chatter, turn))
    return [event for event in events if isinstance(event, CallFinished)]


def written_again(chatter: ChatModel, first: TurnRequest, calls: Sequence[CallFinished]) -> bool:
    """Whether the model reads its own text, with its own white space, where a client sends its calls back."""
    message = Message("assistant", None, tuple(one.call for one in calls))
    result = Message("tool", "{}", tool_call_id=calls[0].call.id)
    text = run(chatter.prompt(replace(first, messages=[*first.messages, message, result]))).plain
    return CALL in text


def test_the_model_reads_its_own_letters_in_the_next_turn() -> None:
    chatter, turn = chatter_of(CALL), asked(tools=[TOOL])
    assert written_again(chatter, turn, conversation(chatter, turn))


def test_a_call_that_was_cut_off_is_not_read_again() -> None:
    """Its client runs the whole calls only, and the model must not read half of another."""
    engine = FakeEngine([[CALL + "\n", '<tool_call>\n{"name": "f", "arguments": {"a"', ": 2"]])
    chatter, turn = chatter_of(engine=engine), asked(tools=[TOOL], constraints=Constraints(calls=tool_calls([TOOL])))
    calls = conversation(chatter, turn)
    assert [one.complete for one in calls] == [True, False]
    assert not written_again(chatter, turn, calls[:1])


def test_a_turn_that_nobody_read_to_its_end_is_not_remembered() -> None:
    async def leave(chatter: ChatModel, turn: TurnRequest) -> CallFinished:
        async with aclosing(chatter.answer(turn)) as events:
            async for event in events:
                if isinstance(event, CallFinished):
                    return event
        raise AssertionError

    chatter, turn = chatter_of(CALL, "\n", "Not yet shown"), asked(tools=[TOOL])
    assert not written_again(chatter, turn, [run(leave(chatter, turn))])


@pytest.mark.parametrize("text", ["Hi", "x<|im_end|>y", "a\n<tool_call>\nb"])
def test_tokens_are_counted_as_the_engine_does(text: str) -> None:
    async def both() -> tuple[int, int]:
        chatter = chatter_of("Hi")
        _, done = await collect(chatter, asked(text))
        return await chatter.count(asked(text)), done.prompt_tokens

    counted, used = run(both())
    assert counted == used


@pytest.mark.parametrize("system", [None, "Answer in one word.", "Never say <|im_end|>."])
def test_a_shift_keeps_the_system_prompt(system: str | None) -> None:
    async def kept() -> str:
        engine = FakeEngine([["Hi"]])
        chatter = chatter_of(engine=engine)
        messages = [Message("system", system)] if system else []
        messages += [Message("user", "First question"), Message("assistant", "Yes."), Message("user", "Second one")]
        await collect(chatter, TurnRequest(messages, shift=True))
        (request,) = engine.requests
        tokens = [token for piece in request.prompt for token in await engine.tokenize(str(piece))]
        return (await engine.detokenize(tokens[: request.keep])).decode()

    text = run(kept())
    assert text.endswith("<|im_end|>\n<|im_start|>user\n")
    assert text.count("<|im_start|>") == 2  # hermes' own system prompt stands where there is no other
    assert (system or "") in text


def test_the_format_is_chosen_by_what_are_single_tokens() -> None:
    """A file of Hermes 4 14B without a template, and a vocabulary that knows nothing of turns."""
    assert "ChatML" in ChatModel(FakeEngine(), replace(LOADED, control=("<|im_start|>", "<|im_end|>"))).choice.why
    assert "Alpaca" in ChatModel(FakeEngine(), replace(LOADED, control=(), tags={})).choice.why


def test_a_template_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="no chat template"):
        run(ChatModel.open(FakeEngine(), template="file"))


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    engine = FakeEngine(refuses=EngineDiedError("the engine ended.", hint="again."))
    with pytest.raises(EngineDiedError):
        run(ChatModel.open(engine))


def recommended(stated: dict[str, str], said: Recommended | None = None) -> SamplingOptions:
    known = None if said is None else structs.replace(HERMES_3, sampling=said)
    return ChatModel(FakeEngine(), replace(LOADED, sampling=stated), known=known).recommended_sampling()


def test_the_file_recommends_before_the_catalogue_and_that_before_llama_cpp() -> None:
    catalogue = Recommended(temperature=0.6, top_p=0.9, repeat_penalty=1.1)
    assert recommended({}) == SamplingOptions()
    assert recommended({}, catalogue) == SamplingOptions(temperature=0.6, top_p=0.9, repeat_penalty=1.1)
    assert recommended({"temp": "0.3", "top_k": "7", "penalty_last_n": "32"}, catalogue) == SamplingOptions(
        temperature=0.3, top_p=0.9, top_k=7, repeat_penalty=1.1, penalty_last_n=32
    )


@given(
    st.dictionaries(
        st.sampled_from(["temp", "top_k", "min_p", "mirostat", "sequence"]), st.text() | st.floats().map(str)
    )
)
def test_nonsense_in_a_file_recommends_nothing(stated: dict[str, str]) -> None:
    sampling = recommended(stated)
    assert 0 <= sampling.temperature <= 100
    assert 0 <= sampling.min_p <= 1


def test_neither_llama_cpp_nor_numpy_is_imported() -> None:
    heavy = "{'llama_cpp', 'numpy', 'llguidance', 'asyncio', 'huggingface_hub'}"
    program = f"import sys, hermes_cli.generation; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_thought_that_was_ended_for_the_model_is_not_ended_again_in_the_answer() -> None:
    end = [*"\n</thi", "nk>\n", "</think>\n\nYes: </think>."]
    script: list[Step] = [
        "<think>",
        "Hm",
        "\n</think>\n",
        *(TextEvent(text, reasoning_cut=True) for text in ("I know.", *end)),
    ]
    events, _ = run(collect(chatter_of(engine=FakeEngine([script])), asked(think_budget=1)))
    assert (said(events, Reasoning), said(events, Content)) == ("Hm", "I know.\n\n\n\nYes: .")
    free: list[Step] = [TextEvent(one.text) if isinstance(one, TextEvent) else one for one in script]
    events, _ = run(collect(chatter_of(engine=FakeEngine([free])), asked(think_budget=1)))
    assert "</think>" in said(events, Content)
