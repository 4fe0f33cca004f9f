import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import jinja2
import numpy as np
import pytest

from hermes_cli.engine.embedded import grammar as constraint
from hermes_cli.engine.embedded.grammar import MOST_COMPILED, Grammars, Matcher, apply_mask
from hermes_cli.engine.embedded.kv_cache import common_prefix
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.sampler import Sampler
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import EngineError, UsageError
from hermes_cli.planning.memory import ContextSettings
from hermes_cli.prompting.messages import CallFinished
from hermes_cli.prompting.parse import Parser
from hermes_cli.prompting.structured_output import choice, gbnf, json_object, json_schema, regex, tool_calls
from hermes_cli.prompting.turn_grammar import TAGS, AnswerGrammar, SpecialTokens, Thinking, ToolGrammar, turn_grammar

Validator = import_module("jsonschema").Draft202012Validator  # it has no types

Json = Any
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TRIP = {
    "type": "object",
    "properties": {
        "people": {"type": "integer", "minimum": 1, "maximum": 9},
        "class": {"enum": ["economy", "business"]},
        "stops": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{3}$"}, "maxItems": 3},
        "note": {"type": ["string", "null"], "maxLength": 20},
    },
    "required": ["people", "class", "stops", "note"],
    "additionalProperties": False,
}
PARAMETERS: dict[str, Json] = {"get_weather": CITY, "book.trip-1": TRIP, "now": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": given}} for name, given in PARAMETERS.items()]
CALL, END_CALL, THINK, END_THINK = TAGS[:4]


@pytest.fixture(scope="module")
def grammars(demo_model: LlamaModel) -> Grammars:
    return Grammars(demo_model.vocabulary, TAGS)


def grammar(
    grammars: Grammars, answer: AnswerGrammar | None, calls: ToolGrammar | None = None, thinking: Thinking = "no"
) -> str:
    tokens = SpecialTokens(grammars.tags, grammars.others)
    made = turn_grammar(answer, calls, thinking=thinking, tokens=tokens)
    assert made is not None
    return made


def allowed(matcher: Matcher) -> set[int]:
    bits = np.unpackbits(np.frombuffer(matcher.mask(), np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def test_tags_and_other_special_tokens_are_told_apart(grammars: Grammars) -> None:
    vocabulary = grammars.vocabulary
    assert set(grammars.tags) == {CALL, END_CALL, THINK, END_THINK}  # the demo has no scratch pad
    spelled = [vocabulary.piece(token).decode() for token in grammars.others]
    assert spelled == [
        "<|im_start|>",
        "<tools>",
        "</tools>",
        "<tool_response>",
        "</tool_response>",
        "<schema>",
        "</schema>",
    ]
    assert not any(vocabulary.ends_generation(token) for token in grammars.others)


def test_masks_hold_what_may_come_next(grammars: Grammars) -> None:
    matcher = grammars.start(grammar(grammars, choice(["yes", "no"])))
    pieces = {grammars.vocabulary.piece(token) for token in allowed(matcher)}
    assert {b"y", b"n"} <= pieces <= {b"y", b"ye", b"yes", b"n", b"no"}
    assert len(matcher.mask()) % 4 == 0
    logits = np.zeros(grammars.vocabulary.size, np.float32)
    apply_mask(matcher.mask(), logits)
    assert set(np.flatnonzero(logits == 0).tolist()) == allowed(matcher)
    assert np.isneginf(logits).sum() == logits.size - len(allowed(matcher))


def test_tokens_are_tried_and_taken(grammars: Grammars) -> None:
    vocabulary = grammars.vocabulary
    matcher = grammars.start(grammar(grammars, regex("abc[0-9]{2,3}")))
    tokens = vocabulary.tokenize("abc12", special=False)
    assert matcher.acceptable([*tokens, tokens[0]]) == len(tokens)
    before = allowed(matcher)
    assert not matcher.try_accept(tokens[-1])
    assert allowed(matcher) == before
    for token in [*tokens, tokens[-1]]:
        assert token in allowed(matcher)
        assert not matcher.finished
        matcher.accept(token)
    assert matcher.finished is True
    assert all(vocabulary.ends_generation(token) for token in allowed(matcher))
    with pytest.raises(EngineError, match="does not allow token"):
        matcher.accept(tokens[-1])


def test_forced_tokens_are_those_of_the_tokenizer(grammars: Grammars) -> None:
    vocabulary = grammars.vocabulary
    matcher = grammars.start(grammar(grammars, None, tool_calls(TOOLS, {"function": {"name": "get_weather"}})))
    written = vocabulary.tokenize('<tool_call>\n{"name": "get_weather", "arguments": {"city": "', special=True)
    forced = matcher.forced()
    assert forced == written[: len(forced)]
    assert len(written) - len(forced) <= 1  # the last may become one with what follows
    for token in forced:
        assert allowed(matcher) == {token}
        matcher.accept(token)
    assert matcher.forced() == []


def test_a_tag_is_its_token_and_not_its_letters(grammars: Grammars) -> None:
    vocabulary = grammars.vocabulary
    free = grammars.start(grammar(grammars, None, tool_calls(TOOLS)))
    assert len(allowed(free)) > 0.9 * vocabulary.size
    free.accept(grammars.tags[CALL])
    assert [vocabulary.piece(token) for token in allowed(free)] == [b"\n"]
    spelled = [token for letter in CALL for token in vocabulary.tokenize(letter, special=False)]
    assert grammars.start(grammar(grammars, None, tool_calls(TOOLS))).acceptable(spelled) == len(spelled) - 1
    none = grammars.start(grammar(grammars, None, tool_calls(TOOLS, "none")))
    assert grammars.tags[CALL] not in allowed(none)
    none.accept(grammars.tags[THINK])
    assert grammars.tags[CALL] not in allowed(none)
    text = grammars.start(grammar(grammars, json_object()))
    for token in vocabulary.tokenize('{"a": "', special=False):
        text.accept(token)
    assert not allowed(text) & {*grammars.tags.values(), *grammars.others}


def test_tags_without_tokens_are_text(demo_model: LlamaModel) -> None:
    plain = Grammars(demo_model.vocabulary)  # as if the vocabulary had no such tags
    matcher = plain.start(grammar(plain, None, tool_calls(TOOLS)))
    vocabulary = demo_model.vocabulary
    spelled = [token for letter in f"Hi\n{CALL}" for token in vocabulary.tokenize(letter, special=False)]
    for token in spelled:
        matcher.accept(token)
    assert [vocabulary.piece(token) for token in allowed(matcher)] == [b"\n"]


def test_numbers_have_an_end_and_digits_in_texts_do_not(grammars: Grammars) -> None:
    number, text = {"type": "number"}, {"type": "string"}
    three = grammars.vocabulary.tokenize("3", special=False)[0]
    for schema, begin, is_bounded in ((number, "0.", True), (text, '"', False)):
        matcher = grammars.start(grammar(grammars, json_schema(schema)))
        write(matcher, grammars.vocabulary.tokenize(begin, special=False))
        taken = sum(matcher.try_accept(three) for _ in range(constraint.MOST_DIGITS + 9))
        assert taken == constraint.MOST_DIGITS + (0 if is_bounded else 9)
        assert (three in allowed(matcher)) != is_bounded
        assert allowed(matcher)
        if is_bounded:
            assert matcher.try_accept(grammars.vocabulary.tokenize("e", special=False)[0])
            assert matcher.try_accept(three)
    exact = grammars.start(grammar(grammars, regex(f"[0-9]{{{constraint.MOST_DIGITS + 5}}}")))
    assert all(exact.try_accept(three) for _ in range(constraint.MOST_DIGITS + 5))


def test_grammars_that_cannot_be_met_are_errors(grammars: Grammars) -> None:
    vocabulary = grammars.vocabulary
    (letter,) = vocabulary.tokenize("a", special=False)
    for rules in ('start: start "a"', "start: A\nA: /a/ & /b/", 'start: "a" B\nB: /x/ & /y/'):
        matcher = grammars.start(json.dumps({"grammars": [{"lark_grammar": rules}]}))
        if not rules.startswith('start: "a"'):
            with pytest.raises(EngineError, match="cannot be written from here: no token fits"):
                matcher.mask()
        else:
            matcher.accept(letter)
            with pytest.raises(EngineError, match="cannot be written from here: no token fits"):
                matcher.mask()
        assert not matcher.finished
        with pytest.raises(EngineError):
            matcher.try_accept(letter)


def test_grammars_that_do_not_compile_are_refused(grammars: Grammars) -> None:
    for rules in ("start: <|nope|>", "start: <[5000]>", "start: x"):
        with pytest.raises(UsageError, match="cannot be used with this model"):
            grammars.start(json.dumps({"grammars": [{"lark_grammar": rules}]}))


GAVE_UP = r"too much time|cannot be written from here: .*items"
AMBIGUOUS = "start: s\ns: s s | s s s | /[ -~\\n]/"


def write(matcher: Matcher, tokens: list[int], *, masked: bool = False) -> None:
    for token in tokens:
        if masked:
            matcher.mask()
        matcher.accept(token)


def test_grammars_that_take_too_long_end_with_an_error(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in llguidance limits what it takes to go on with a token: here the time grows with the cube."""
    monkeypatch.setattr(constraint, "CREDIT", 0.05)  # the same, sooner
    made = json.dumps({"grammars": [{"lark_grammar": AMBIGUOUS}]})
    (letter,) = grammars.vocabulary.tokenize("a", special=False)
    matcher = grammars.start(made)
    started = time.thread_time()
    with pytest.raises(EngineError, match=GAVE_UP):
        write(matcher, [letter] * 5000)
    assert time.thread_time() - started < 6
    matcher = grammars.start(made)
    with pytest.raises(EngineError, match=GAVE_UP):
        write(matcher, [letter] * 5000, masked=True)
    assert grammars.start(made).try_accept(letter)


def test_long_tokens_are_taken_as_masks_allow(demo_model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "LONG", 8)  # the demo's are all short
    vocabulary = demo_model.vocabulary
    grammars = Grammars(vocabulary, TAGS)
    (long,) = vocabulary.tokenize("temperature", special=False)
    assert grammars.start(grammar(grammars, choice(["temperature"]))).try_accept(long)
    other = grammars.start(grammar(grammars, choice(["no"])))
    assert not other.try_accept(long)
    assert other.acceptable([long]) == 0
    no = vocabulary.tokenize("no", special=False)
    assert other.acceptable([*no, long]) == len(no)
    ambiguous = grammars.start(json.dumps({"grammars": [{"lark_grammar": AMBIGUOUS}]}))
    with pytest.raises(EngineError, match=GAVE_UP):
        write(ambiguous, [long] * 100)


def test_a_grammar_that_gave_up_is_compiled_anew(grammars: Grammars) -> None:
    """Requests with the same grammar share its lexer, and that has room for so many states only."""
    made = grammar(grammars, regex("(.|\\n)*[aeiou ](.|\\n){40}z"))
    chance = random.Random(3)
    letters = [grammars.vocabulary.tokenize(letter, special=False)[0] for letter in "aeixyz"]
    matcher = grammars.start(made)
    with pytest.raises(EngineError, match="cannot be written from here"):
        write(matcher, chance.choices(letters, k=20_000), masked=True)
    again = grammars.start(made)
    again.accept(letters[0])
    assert again.mask()


def test_few_grammars_are_kept(grammars: Grammars) -> None:
    for number in range(2 * MOST_COMPILED):
        grammars.start(grammar(grammars, choice([f"text {number}"])))
    assert len(grammars._compiled) == MOST_COMPILED  # noqa: SLF001 - it is all that says so


def test_a_grammar_is_compiled_once_and_shared_by_threads(grammars: Grammars) -> None:
    made = grammar(grammars, json_schema(TRIP))
    tokens = grammars.vocabulary.tokenize(
        '{"people": 2, "class": "economy", "stops": ["AMS"], "note": null}', special=False
    )

    def use(_: int) -> bool:
        matcher = grammars.start(made)
        return matcher.acceptable(tokens) == len(tokens)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(64)))


# With the model


class Writer:
    """Lets the demo model write under a grammar, in the way that constraint.py recommends."""

    def __init__(self, context: LlamaContext) -> None:
        self.context, self.vocabulary = context, context.model.vocabulary
        self.batch = Batch(context.batch_tokens)
        self.prompt: list[int] = []
        self.steps = self.forced = self.masked = 0

    def write(self, question: str, matcher: Matcher, sampling: SamplingOptions, most: int = 300) -> tuple[str, bool]:
        """The text, and whether it ended by itself."""
        tokens = self.vocabulary.tokenize(question, special=True)
        shared = min(common_prefix(self.prompt, tokens), len(tokens) - 1)
        self.context.forget(0, shared)
        self.prompt = tokens
        for start in range(shared, len(tokens), self.batch.capacity):
            self._decode(tokens[start : start + self.batch.capacity], start)
        written: list[int] = []
        with Sampler(sampling, self.vocabulary, 1024) as sampler:
            while len(written) < most:
                if forced := matcher.forced():
                    self.forced += len(forced)
                    new = forced
                else:
                    new = [self._draw(sampler, matcher)]
                    if self.vocabulary.ends_generation(new[0]):
                        return self._text(written), True
                self.steps += len(new)
                for token in new if forced else ():
                    matcher.accept(token)
                self._decode(new, len(tokens) + len(written))
                written += new
                if matcher.finished:
                    return self._text(written), True
        return self._text(written), False

    def _draw(self, sampler: Sampler, matcher: Matcher) -> int:
        logits = self.context.logits()[0]
        token = sampler.draw(logits)
        if matcher.try_accept(token):
            return token
        self.masked += 1
        apply_mask(matcher.mask(), logits)
        token = sampler.draw(logits)
        matcher.accept(token)
        return token

    def _decode(self, tokens: list[int], position: int) -> None:
        self.batch.clear()
        self.batch.add(tokens, position, 0, 1)
        self.context.decode(self.batch)

    def _text(self, tokens: list[int]) -> str:
        return b"".join(map(self.vocabulary.piece, tokens)).decode()


@pytest.fixture(scope="module")
def writer(demo_model: LlamaModel) -> Iterator[Writer]:
    with LlamaContext(demo_model, ContextSettings(1024), threads=1) as context:
        yield Writer(context)


QUESTION = "What's the weather in Tokyo?"


RUNS = [SamplingOptions(temperature=0), *(SamplingOptions(1.5, 0, 1.0, 0.0, seed=seed) for seed in range(4))]


def prompt(model: LlamaModel, question: str, thinking: Thinking = "no") -> str:
    """What the demo was trained on, with all tools."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - no HTML
    environment.filters["tojson"] = json.dumps
    template = environment.from_string(model.chat_template() or "")
    messages = [{"role": "user", "content": question}]
    rendered = template.render(messages=messages, tools=TOOLS, thinking=thinking != "no", add_generation_prompt=True)
    return rendered + ("<think>\n" if thinking == "inside" else "")


def texts(
    writer: Writer, grammars: Grammars, made: str, thinking: Thinking = "no", question: str = QUESTION
) -> Iterator[str]:
    """What the model writes, greedily and wildly, where it comes to an end."""
    ended = 0
    asked = prompt(writer.context.model, question, thinking)
    for sampling in RUNS:
        text, whole = writer.write(asked, grammars.start(made), sampling)
        ended += whole
        if whole:
            yield text
    assert ended >= len(RUNS) // 2


def calls_in(text: str, *, opened: bool = False) -> list[tuple[str, Json]]:
    parser = Parser(tools=PARAMETERS, prompt_opens_think=opened)
    events = [*parser.feed(text), *parser.finish()]
    return [(event.call.name, event.call.arguments) for event in events if isinstance(event, CallFinished)]


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("tool_choice", ["required", {"type": "function", "function": {"name": "book.trip-1"}}])
def test_required_calls_are_made(writer: Writer, grammars: Grammars, tool_choice: Json, *, parallel: bool) -> None:
    made = grammar(grammars, None, tool_calls(TOOLS, tool_choice, parallel=parallel))
    for text in texts(writer, grammars, made):
        found = calls_in(text)
        assert found, text
        assert parallel or len(found) == 1
        for name, arguments in found:
            assert tool_choice == "required" or name == "book.trip-1"
            assert Validator({**PARAMETERS[name], "additionalProperties": False}).is_valid(arguments), text


@pytest.mark.parametrize("thinking", ["may", "inside"])
def test_calls_after_a_thought(writer: Writer, grammars: Grammars, thinking: Thinking) -> None:
    made = grammar(grammars, None, tool_calls(TOOLS, "required"), thinking)
    for text in texts(writer, grammars, made, thinking):
        assert calls_in(text, opened=thinking == "inside"), text


def test_free_turns_have_only_calls_of_offered_tools(writer: Writer, grammars: Grammars) -> None:
    free = grammar(grammars, None, tool_calls(TOOLS))
    found = []
    for text in texts(writer, grammars, free):
        if text.rfind(THINK) <= text.rfind(END_THINK):
            found += calls_in(text)
    for name, arguments in found:
        assert Validator({**PARAMETERS[name], "additionalProperties": False}).is_valid(arguments)
    assert found


def test_no_calls_with_none(writer: Writer, grammars: Grammars) -> None:
    for text in texts(writer, grammars, grammar(grammars, None, tool_calls(TOOLS, "none"))):
        assert CALL not in text


def test_a_grammar_changes_nothing_where_it_is_kept(writer: Writer, grammars: Grammars) -> None:
    """Greedy, the model calls a tool by itself; with the grammar it writes the same tokens, and needs no mask."""
    anything = (
        f"start: (TEXT | <[{','.join(map(str, [*grammars.others, *grammars.tags.values()]))}]>)*\nTEXT: /(?s:.+)/"
    )
    nothing = grammars.start(json.dumps({"grammars": [{"lark_grammar": anything}]}))
    question = prompt(writer.context.model, QUESTION)
    alone, _ = writer.write(question, nothing, SamplingOptions(temperature=0))
    assert CALL in alone
    writer.masked = 0
    calls = grammars.start(grammar(grammars, None, tool_calls(TOOLS)))
    assert writer.write(question, calls, SamplingOptions(temperature=0)) == (alone, True)
    assert writer.masked == 0


@pytest.mark.parametrize("thinking", ["no", "may"])
def test_answers_conform_to_a_schema(writer: Writer, grammars: Grammars, thinking: Thinking) -> None:
    made = grammar(grammars, json_schema(TRIP), None, thinking)
    for text in texts(writer, grammars, made, thinking):
        assert Validator(TRIP).is_valid(json.loads(text.rpartition(END_THINK)[2])), text


def test_other_answers(writer: Writer, grammars: Grammars) -> None:
    for text in texts(writer, grammars, grammar(grammars, choice(["yes", "no", "it depends"]))):
        assert text in {"yes", "no", "it depends"}
    for text in texts(writer, grammars, grammar(grammars, regex("[a-z]{3,5}( [a-z]{3,5})?"))):
        assert text.replace(" ", "").isalpha()
    for text in texts(writer, grammars, grammar(grammars, gbnf('root ::= "a" item{1,3}\nitem ::= "," [0-9]'))):
        assert text.startswith("a,")


def test_most_of_a_call_is_forced(writer: Writer, grammars: Grammars) -> None:
    writer.steps = writer.forced = 0
    list(texts(writer, grammars, grammar(grammars, None, tool_calls(TOOLS[:1], "required", parallel=False))))
    assert writer.forced > 0.4 * writer.steps
