"""Many requests in one batch, on the real demo model: each gets what it would get alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from desk import GREEDY, Desk, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_cli.engine.embedded import grammar as constraint
from hermes_cli.engine.embedded import scheduler
from hermes_cli.engine.embedded.grammar import Grammars
from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.speculation import DraftAcceptance
from hermes_cli.engine.embedded.step_cost import StepCostModel
from hermes_cli.engine.protocol import TextEvent
from hermes_cli.engine.request import ReasoningOptions, SamplingOptions
from hermes_cli.errors import ContextFullError, EngineError, QueueFullError
from hermes_cli.prompting.structured_output import json_schema
from hermes_cli.prompting.turn_grammar import TAGS, SpecialTokens, turn_grammar

WILD = SamplingOptions(temperature=5, top_k=0, top_p=1, min_p=0, seed=7)
QUESTIONS = [
    "Who are you?",
    "What can you do?",
    "What's the weather in Tokyo?",
    "Count to five.",
    "Say hello to Ada.",
    "What is 2 + 2?",
    "Tell me about Hermes.",
    "Write a haiku.",
]


@pytest.fixture(scope="module")
def alone(demo_model: LlamaModel) -> dict[str, str]:
    """What each question is answered with when nothing else runs."""
    return {text: Desk(demo_model, lookup=False).answer(turn(text), max_tokens=60)[0] for text in QUESTIONS}


@pytest.fixture(scope="module")
def grammars(demo_model: LlamaModel) -> Grammars:
    return Grammars(demo_model.vocabulary, TAGS)


def test_batched_is_as_alone(demo_model: LlamaModel, alone: dict[str, str]) -> None:
    desk = Desk(demo_model, slots=8, lookup=False)
    asked = {text: desk.ask(turn(text), max_tokens=60) for text in QUESTIONS}
    desk.run()
    assert {text: desk.text(number) for text, number in asked.items()} == alone


@pytest.mark.parametrize("micro_batch", [16, 64, 512])
def test_who_comes_later_disturbs_nobody(demo_model: LlamaModel, alone: dict[str, str], micro_batch: int) -> None:
    desk = Desk(demo_model, slots=3, micro_batch=micro_batch)
    asked = {}
    for text in QUESTIONS:
        asked[text] = desk.ask(turn(text), max_tokens=60)
        for _ in range(3):
            desk.scheduler.step()
    desk.run()
    assert {text: desk.text(number) for text, number in asked.items()} == alone


def always_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether guessing pays depends on the machine; what it does to the text must not."""
    monkeypatch.setattr(StepCostModel, "draft_length", lambda _, acceptance_rate, tokens, most: min(8, most))  # noqa: ARG005
    monkeypatch.setattr(DraftAcceptance, "should_draft", lambda _: True)


def test_guessing_changes_nothing(demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    always_guess(monkeypatch)
    words = "alpha beta gamma delta epsilon zeta eta theta " * 8
    prompts = [turn(f"Repeat this: {words}"), words * 3, *map(turn, QUESTIONS[:3])]
    plain, guessing = Desk(demo_model, lookup=False), Desk(demo_model, lookup=True)
    for prompt in prompts:
        expected, _ = plain.answer(prompt, max_tokens=120)
        found, done = guessing.answer(prompt, max_tokens=120)
        assert found == expected
        assert done.accepted_tokens <= done.drafted_tokens
    assert guessing.scheduler.stats().accepted_tokens > 0
    assert plain.scheduler.stats().drafted_tokens == 0


def test_guessing_takes_fewer_steps_where_text_repeats(demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    always_guess(monkeypatch)
    words = "one two three four five six seven eight nine ten " * 20
    plain, guessing = Desk(demo_model, lookup=False), Desk(demo_model)
    for desk in (plain, guessing):
        desk.answer(words, max_tokens=100, sampling=SamplingOptions(temperature=0, ignore_eos=True))
    assert guessing.scheduler.stats().steps < 0.7 * plain.scheduler.stats().steps


def test_with_a_seed_drafts_do_not_depend_on_measured_times(
    demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of other sizes round otherwise."""
    words = "one two three four five six seven eight nine ten " * 20
    drafted = set()
    for length in (0, 3, 24):
        monkeypatch.setattr(StepCostModel, "draft_length", lambda *_, length=length: length)
        desk = Desk(demo_model)
        desk.answer(words, max_tokens=100, sampling=SamplingOptions(temperature=0, seed=7, ignore_eos=True))
        stats = desk.scheduler.stats()
        drafted.add((stats.steps, stats.drafted_tokens, stats.accepted_tokens))
    ((steps, _, accepted),) = drafted
    assert accepted > 0
    assert steps < 100


def test_same_seed_same_text_with_and_without_drafts(demo_model: LlamaModel) -> None:
    """As long as no cell is used twice: attention adds the values of cells up in their order."""
    plain, drafting = (Desk(demo_model, 8192, lookup=lookup) for lookup in (False, True))
    words = turn("Count: one two three one two three one two three one two")
    for seed in range(2):
        sampling = SamplingOptions(temperature=1.2, top_k=0, top_p=1, min_p=0, seed=seed, ignore_eos=True)
        texts = [desk.answer(words, max_tokens=120, sampling=sampling)[0] for desk in (plain, drafting, drafting)]
        assert len(set(texts)) == 1
    assert drafting.scheduler.stats().drafted_tokens > 0


def test_the_next_turn_reads_only_what_is_new(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    first = turn("Who are you?")
    answer, done = desk.answer(first, max_tokens=40)
    assert done.cached_tokens == 0
    second = f"{first}{answer}<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    _, done = desk.answer(second, max_tokens=20)
    new = done.prompt_tokens - done.cached_tokens
    assert done.cached_tokens >= len(demo_model.vocabulary.tokenize(first + answer, special=True)) - 2
    assert new < 20


def test_the_same_prompt_again_computes_one_token(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    first, _ = desk.answer(turn("Who are you?"), max_tokens=30)
    again, done = desk.answer(turn("Who are you?"), max_tokens=30)
    assert (again, done.cached_tokens) == (first, done.prompt_tokens - 1)


def test_a_shared_system_prompt_is_computed_once(demo_model: LlamaModel) -> None:
    system = "You are Hermes Demo. " + "Be brief and kind to everybody who asks. " * 12
    desk = Desk(demo_model, slots=8, micro_batch=64)
    asked = [desk.ask(turn(text, system), max_tokens=5) for text in QUESTIONS * 2]
    desk.run()
    long = len(demo_model.vocabulary.tokenize(turn("", system), special=True))
    computed = desk.scheduler.stats().prompt_tokens
    assert computed < 2 * long + 16 * 25
    assert sum(desk.done(number).cached_tokens > long // 2 for number in asked) == 15


def test_a_request_follows_another_one_when_the_first_is_cancelled(demo_model: LlamaModel) -> None:
    system = "You are Hermes Demo. " + "Be brief and kind to everybody who asks. " * 12
    desk = Desk(demo_model, micro_batch=32)
    first, second = (desk.ask(turn(text, system), max_tokens=5) for text in QUESTIONS[:2])
    desk.scheduler.step()
    assert len(desk.scheduler.stats().running) == 1  # the second waits for the first one's prompt
    desk.scheduler.cancel(first)
    desk.run()
    assert not desk.events[first]
    assert desk.done(second).completion_tokens == 5


def test_a_full_cache_puts_the_youngest_back_and_nobody_notices(
    demo_model: LlamaModel, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MARGIN", 0)  # admit too many
    desk = Desk(demo_model, context=256, slots=8)
    asked = {text: desk.ask(turn(text), max_tokens=60) for text in QUESTIONS}
    desk.run()
    assert {text: desk.text(number) for text, number in asked.items()} == alone
    assert desk.scheduler.stats().preempted > 0
    assert desk.scheduler.stats().failed == 0


def test_seeded_text_survives_being_put_back(demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MARGIN", 0)
    seeded = SamplingOptions(temperature=0.9, top_k=40, seed=11, repeat_penalty=1.1)
    fresh = Desk(demo_model)
    expected = {text: fresh.answer(turn(text), max_tokens=60, sampling=seeded)[0] for text in QUESTIONS}
    desk = Desk(demo_model, context=256, slots=8)
    asked = {text: desk.ask(turn(text), max_tokens=60, sampling=seeded) for text in QUESTIONS}
    desk.run()
    assert {text: desk.text(number) for text, number in asked.items()} == expected
    assert desk.scheduler.stats().preempted > 0


def test_same_seed_same_text_whoever_else_runs(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    first, _ = desk.answer(turn("Write a haiku."), max_tokens=40, sampling=WILD)
    one = desk.ask(turn("Write a haiku."), max_tokens=40, sampling=WILD)
    other = desk.ask(turn("Write a haiku."), max_tokens=40, sampling=replace(WILD, seed=8))
    desk.ask(turn("Who are you?"), max_tokens=40)
    desk.run()
    assert desk.text(one) == first != desk.text(other)


def test_clients_take_turns(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, slots=1)
    ended: list[int] = []
    desk.scheduler._emit = lambda number, event: ended.append(number) if not isinstance(event, TextEvent) else None  # noqa: SLF001
    greedy = [desk.ask(turn(text), max_tokens=3, client="greedy") for text in QUESTIONS[:4]]
    modest = desk.ask(turn("Hello"), max_tokens=3, client="modest")
    desk.run()
    assert ended.index(modest) <= 1
    assert [number for number in ended if number in greedy] == greedy


def test_the_queue_has_a_limit(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, slots=1, max_queue=100)
    asked = [desk.ask(turn(str(number)), max_tokens=2) for number in range(1000)]
    refused = [number for number in asked if desk.events[number]]
    assert len(refused) == 900
    assert all(isinstance(desk.error(number), QueueFullError) for number in refused)
    assert "100 requests are waiting" in desk.error(refused[0]).message
    desk.run()
    assert all(desk.done(number).completion_tokens <= 2 for number in asked if number not in refused)


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, context=256)
    error = desk.error(desk.ask([5] * 256))
    assert isinstance(error, ContextFullError)
    assert "256 tokens, the context length is 256 tokens" in error.message
    assert not desk.scheduler.busy


def test_the_context_length_ends_an_answer(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, context=256)
    endless = SamplingOptions(temperature=0, ignore_eos=True)
    _, done = desk.answer(turn("Count."), sampling=endless)
    assert (done.reason, done.context_full) == ("length", True)
    assert done.prompt_tokens + done.completion_tokens == 256


def test_a_shift_goes_on_beyond_the_context_length(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, context=256)
    endless = SamplingOptions(temperature=0, ignore_eos=True)
    number = desk.ask(turn("Count."), sampling=endless, shift=True, keep=10, max_tokens=700)
    desk.run()
    assert (desk.done(number).completion_tokens, desk.done(number).context_full) == (700, False)


def test_max_tokens(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    for most in (0, 1, 2, 7):
        text, done = desk.answer(turn("Who are you?"), max_tokens=most)
        assert (done.reason, done.completion_tokens) == ("length", most)
        assert bool(text) == bool(most)


def test_cancelled_requests_say_nothing_more_and_free_their_place(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, slots=2)
    endless = SamplingOptions(temperature=0, ignore_eos=True)
    asked = [desk.ask(turn(text), sampling=endless) for text in QUESTIONS]
    for _ in range(5):
        desk.scheduler.step()
    for number in asked:
        desk.scheduler.cancel(number)
        desk.scheduler.cancel(number)
    said = {number: len(desk.events[number]) for number in asked}
    assert not desk.scheduler.busy
    desk.scheduler.step()
    assert {number: len(desk.events[number]) for number in asked} == said
    assert desk.scheduler.stats().cancelled == len(QUESTIONS)
    assert desk.scheduler.kv_cache.used == desk.scheduler.kv_cache.reusable


def test_stop_texts_end_the_answer_and_are_no_part_of_it(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    whole, _ = desk.answer(turn("Who are you?"), max_tokens=60)
    stop = whole[10:17]  # across tokens, most likely
    text, done = desk.answer(turn("Who are you?"), max_tokens=60, stops=("never there", stop))
    assert text == whole[: whole.index(stop)]
    assert (done.reason, done.stop) == ("stop", stop)


def test_running_streams_go_on_while_a_long_prompt_is_read(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model, micro_batch=512)
    endless = SamplingOptions(temperature=0, ignore_eos=True)
    stream = desk.ask(turn("Count."), sampling=endless, max_tokens=200)
    for _ in range(40):
        desk.scheduler.step()
    long = desk.ask([number % 900 + 20 for number in range(700)], max_tokens=1)
    before, steps = desk.scheduler.stats().completion_tokens, 0
    while not desk.events[long]:
        desk.scheduler.step()
        steps += 1
    assert steps > 1  # in chunks
    assert desk.scheduler.stats().completion_tokens - before >= steps
    desk.scheduler.cancel(stream)


def test_a_schema_holds_beside_others(demo_model: LlamaModel, grammars: Grammars) -> None:
    schema = {
        "type": "object",
        "properties": {"first_name": {"type": "string", "maxLength": 12}, "is_member": {"type": "boolean"}},
        "required": ["first_name", "is_member"],
        "additionalProperties": False,
    }
    grammar = turn_grammar(json_schema(schema), None, tokens=SpecialTokens(grammars.tags, grammars.others))
    assert grammar
    desk = Desk(demo_model)
    asked = [desk.ask(turn(text), grammars.start(grammar), max_tokens=200) for text in QUESTIONS[:3]]
    free = desk.ask(turn("Who are you?"), max_tokens=30)
    desk.run()
    for number in asked:
        assert desk.text(number).replace(" ", "").startswith('{"first_name":"')
        assert desk.done(number).reason == "stop"
    assert desk.text(free)
    steps = desk.scheduler.stats().steps
    assert steps < max(desk.done(number).completion_tokens for number in asked) + 10  # forced tokens go together


def test_a_grammar_that_fails_ends_one_request(
    demo_model: LlamaModel, grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraint, "CREDIT", 0.05)  # seconds until it is given up
    desk = Desk(demo_model)
    other = desk.ask(turn("Who are you?"), max_tokens=60)
    ambiguous = "start: s\ns: s s | s s s | /[ -~\\n]/"
    matcher = grammars.start(json.dumps({"grammars": [{"lark_grammar": ambiguous}]}))
    failing = desk.ask(turn("Tell me a long story."), matcher, max_tokens=900, sampling=WILD)
    desk.run()
    assert isinstance(desk.events[failing][-1], EngineError)
    assert desk.done(other).reason in {"stop", "length"}
    assert desk.text(other) == Desk(demo_model).answer(turn("Who are you?"), max_tokens=60)[0]


def test_reasoning_is_closed_when_its_budget_is_used_up(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    prompt = turn("Who are you?") + "<think>\n"
    number = desk.ask(prompt, reasoning=ReasoningOptions(6, inside=True), max_tokens=60)
    desk.run()
    thought, closing, answer = desk.text(number).partition("</think>")
    assert closing
    assert answer
    assert len(demo_model.vocabulary.tokenize(thought, special=True)) <= 8


@pytest.mark.parametrize("budget", [2, 12, 900])
def test_reasoning_that_is_cut_ends_with_a_sentence_that_has_room(demo_model: LlamaModel, budget: int) -> None:
    desk = Desk(demo_model)
    reasoning = ReasoningOptions(budget, inside=True, end="So")
    number = desk.ask(turn("What can you do?") + "<think>\n", reasoning=reasoning, max_tokens=80)
    desk.run()
    assert ("So\n</think>\n" in desk.text(number)) == (budget == 12)
    assert desk.done(number).reasoning_tokens <= budget + 3
    cut = [event.reasoning_cut for event in desk.events[number] if isinstance(event, TextEvent)]
    assert cut == sorted(cut)
    assert cut[-1] == (budget < 900)


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 7}, {"stops": ("file",)}, {"budget": 6}])
def test_tokens_of_reasoning_are_counted(demo_model: LlamaModel, limits: dict[str, Any]) -> None:
    """The same, whether drafts are taken several at once or a token is written in each step."""
    reasoning = ReasoningOptions(limits.get("budget"), inside=True)
    limits = {"max_tokens": 60, **{name: value for name, value in limits.items() if name != "budget"}}
    counts = set()
    for lookup in (False, True):
        desk = Desk(demo_model, lookup=lookup)
        prompt = turn("What is GGUF?") + "<think>\n"
        number = desk.ask(prompt, reasoning=reasoning, top_logprobs=0, speculate=lookup, **limits)
        desk.run()
        told = [one.chosen for event in desk.events[number] if isinstance(event, TextEvent) for one in event.logprobs]
        written = [b"".join(one.bytes for one in told[:end]) for end in range(desk.done(number).completion_tokens)]
        counts.add((desk.done(number).reasoning_tokens, sum(b"</think>" not in text for text in written)))
    assert len(counts) == 1
    ((count, expected),) = counts
    assert count == expected > 0


def test_log_probabilities_of_a_prompt_have_a_limit(demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_cli.engine.embedded.sequence.MOST_PROMPT_LOGPROBS", 40)
    desk = Desk(demo_model)
    tokens = len(desk.model.vocabulary.tokenize("Who are you?", special=True))
    few, many = desk.ask("Who are you?", prompt_logprobs=1, max_tokens=0), desk.ask("Who are you?", prompt_logprobs=20)
    desk.run()
    told = [token for event in desk.events[few] if isinstance(event, TextEvent) for token in event.prompt]
    assert len(told) == desk.done(few).prompt_tokens >= tokens
    assert desk.done(few).completion_tokens == 0
    assert "more than 40." in str(desk.error(many))


def test_prompts_that_are_read_again_are_told_once(demo_model: LlamaModel) -> None:
    """One of several requests loses its sequence where the KV cache is full, and begins anew."""
    desk = Desk(demo_model, context=256, slots=2)
    prompt = turn("What is GGUF? " * 4)
    endless = replace(GREEDY, ignore_eos=True)
    both = [desk.ask(prompt + end, prompt_logprobs=0, max_tokens=120, sampling=endless) for end in ("a", "b")]
    desk.run()
    assert desk.scheduler.stats().preempted
    for number in both:
        told = [token for event in desk.events[number] if isinstance(event, TextEvent) for token in event.prompt]
        assert len(told) == desk.done(number).prompt_tokens


def test_log_probabilities_come_with_their_tokens(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    number = desk.ask(turn("Who are you?"), top_logprobs=3, max_tokens=12)
    desk.run()
    told = [one for event in desk.events[number] if isinstance(event, TextEvent) for one in event.logprobs]
    assert len(told) >= 12
    assert b"".join(one.chosen.bytes for one in told[:12]).decode().startswith(desk.text(number)[:10])
    assert all(one.chosen == one.top[0] and len(one.top) == 3 for one in told)  # greedy


def test_every_generated_token_is_counted_once(demo_model: LlamaModel) -> None:
    desk = Desk(demo_model)
    number = desk.ask(turn("Who are you?"), stops=("zzz",), max_tokens=50)
    desk.run()
    counted = sum(event.tokens for event in desk.events[number] if isinstance(event, TextEvent))
    assert counted == desk.done(number).completion_tokens


def test_a_failed_decode_ends_who_was_in_it_and_nobody_else(
    demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(demo_model, slots=1)
    first, second = desk.ask(turn("Who are you?"), max_tokens=9), desk.ask(turn("Count."), max_tokens=9)
    whole = type(desk.context).decode

    def broken(*_: object) -> None:
        monkeypatch.setattr(type(desk.context), "decode", whole)
        raise EngineError("llama.cpp's decode failed (code -3).", hint="none")

    monkeypatch.setattr(type(desk.context), "decode", broken)
    desk.run()
    assert "code -3" in desk.error(first).message
    assert desk.done(second).completion_tokens == 9


@given(st.data())
@settings(max_examples=settings().max_examples // 5)
def test_any_mixture_ends_and_leaks_nothing(demo_model: LlamaModel, data: st.DataObject) -> None:
    desk = Desk(demo_model, context=256, slots=data.draw(st.integers(1, 4)), micro_batch=64, max_queue=6)
    asked: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["ask", "ask", "ask", "cancel", "step"]))
        if action == "ask":
            words = data.draw(st.text("abc ", max_size=200))
            sampling = data.draw(st.sampled_from([GREEDY, WILD, SamplingOptions(ignore_eos=True, seed=1)]))
            asked.append(desk.ask(turn(words), max_tokens=data.draw(st.integers(0, 150)), sampling=sampling))
        elif action == "cancel" and asked:
            desk.scheduler.cancel(data.draw(st.sampled_from(asked)))
        else:
            for _ in range(data.draw(st.integers(1, 20))):
                desk.scheduler.step()
    desk.run()
    stats = desk.scheduler.stats()
    ended = sum(1 for number in asked if desk.events[number] and not isinstance(desk.events[number][-1], TextEvent))
    assert ended + stats.cancelled == len(asked)
    assert (stats.running, stats.queued) == ((), 0)
    assert stats.cache_used == stats.cache_reusable <= stats.cache_cells
