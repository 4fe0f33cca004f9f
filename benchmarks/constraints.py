"""Grammars: compile time, time per mask, forced tokens; next to llama.cpp's own grammars on the same schema and text.

    python benchmarks/constraints.py                           # the demo model: masks, and whether all outputs conform
    python benchmarks/constraints.py ggml-vocab-llama-bpe.gguf      # masks on a large vocabulary (llama.cpp's models/)

A schema of 40 nested fields is walked along one document; at each of its tokens both sides compute what may come next.
They take turns. llama.cpp's side is `llama_sampler_apply` of its grammar sampler on all tokens of the vocabulary.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from hermes_cli import paths
from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.grammar import Grammars, Matcher, apply_mask
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.sampler import Sampler
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.planning.memory import ContextSettings
from hermes_cli.prompting import grammar_check
from hermes_cli.prompting.messages import CallFinished
from hermes_cli.prompting.parse import Parser
from hermes_cli.prompting.structured_output import json_schema, tool_calls
from hermes_cli.prompting.turn_grammar import TAGS, SpecialTokens, turn_grammar

Validator = import_module("jsonschema").Draft202012Validator  # it has no types
to_gbnf = import_module("llama_cpp.llama_grammar").json_schema_to_gbnf

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 60},
        "email": {"type": "string"},
        "birthday": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
        "role": {"enum": ["owner", "editor", "viewer"]},
        "active": {"type": "boolean"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "score": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    },
    "required": ["name", "email", "birthday", "role", "active", "age", "score", "tags"],
    "additionalProperties": False,
}
PEOPLE = ("author", "reviewer", "editor", "customer", "supplier")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(PEOPLE, PERSON),
    "required": list(PEOPLE),
    "additionalProperties": False,
}
ADA = {
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "birthday": "1815-12-10",
    "role": "owner",
    "active": True,
    "age": 36,
    "score": 0.75,
    "tags": ["mathematics", "analytical engine"],
}
DOCUMENT = json.dumps(dict.fromkeys(PEOPLE, ADA))
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
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PARAMETERS: dict[str, Any] = {"get_weather": CITY, "get_time": CITY, "book.trip-1": TRIP}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": given}} for name, given in PARAMETERS.items()]


class VocabularyFile:
    """A model of which only the vocabulary is loaded."""

    def __init__(self, path: Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)


def seconds(job: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def spread(title: str, times: list[float], unit: float = 1e-3) -> None:
    """Print median, 99th percentile and largest of some times, in milliseconds."""
    ordered = sorted(times)
    high = ordered[int(len(ordered) * 0.99)]
    print(
        f"  {title:34} median {statistics.median(ordered) / unit:8.3f} ms  99 % below {high / unit:8.3f} ms"
        f"  mean {statistics.fmean(ordered) / unit:8.3f} ms  ({len(ordered)})"
    )


class LlamaGrammar:
    """llama.cpp's own grammar sampler."""

    def __init__(self, vocabulary: Any, gbnf: str) -> None:  # noqa: ANN401 - a llama.cpp vocabulary
        self._size = vocabulary.size
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocabulary._vocab, gbnf.encode(), b"root")  # noqa: SLF001
        kind = llama_cpp.llama_token_data * self._size
        self._all = kind(*((token, 0.0, 0.0) for token in range(self._size)))
        self._now = kind()

    def mask(self) -> None:
        """Set the logit of what is not allowed to minus infinity."""
        ctypes.memmove(self._now, self._all, ctypes.sizeof(self._all))
        candidates = llama_cpp.llama_token_data_array(self._now, self._size, -1, False)  # noqa: FBT003 - a C structure
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(candidates))

    def accept(self, token: int) -> None:
        """Go on with a token."""
        llama_cpp.llama_sampler_accept(self._sampler, token)


def masks(name: str, model: Any, rounds: int) -> None:  # noqa: ANN401 - a Model or a VocabularyFile
    """Everything that needs a vocabulary only."""
    vocabulary = import_module("hermes_cli.engine.embedded.llama").Vocabulary(model)
    started = time.perf_counter()
    grammars = Grammars(vocabulary, TAGS)
    tokenizer = grammars.tokenizer()
    print(f"{name}: {vocabulary.size:,} tokens, read in {time.perf_counter() - started:.2f} s")
    tokens = tokenizer.tokenize_str(DOCUMENT)  # without the space that some tokenizers add
    special = SpecialTokens(grammars.tags, grammars.others)
    checks, compiles, ours, theirs, tried = [], [], [], [], []
    grammar = ""
    gbnf = to_gbnf(json.dumps(SCHEMA))
    for _ in range(rounds):
        grammar_check._results = grammar_check._Results()  # noqa: SLF001 - a first request
        started = time.perf_counter()
        grammar = turn_grammar(json_schema(SCHEMA), None, tokens=special) or ""
        checks.append(time.perf_counter() - started)
        compiles.append(seconds(lambda: grammars._compile(grammar)))  # noqa: SLF001, B023 - used at once
        matcher, peer = grammars.start(grammar), LlamaGrammar(vocabulary, gbnf)
        for token in tokens:
            ours.append(seconds(matcher.mask))
            theirs.append(seconds(peer.mask))
            tried.append(seconds(lambda: matcher.try_accept(token)))  # noqa: B023 - used at once
            peer.accept(token)
    spread("check and rewrite the schema", checks)
    spread("compile it for the vocabulary", compiles)
    spread("mask", ours)
    spread("mask, llama.cpp's grammar", theirs)
    spread("try a drawn token", tried)
    logits = np.zeros(vocabulary.size, np.float32)
    spread("put a mask on logits", [seconds(lambda: apply_mask(matcher.mask(), logits)) for _ in range(100)])
    print(f"  {statistics.fmean(ours) / statistics.fmean(theirs):.4f} x the time of llama.cpp's masks (means)")
    forced = sum(1 for _ in forced_tokens(grammars.start(grammar), tokens))
    print(f"  {forced} of {len(tokens)} tokens ({forced / len(tokens):.0%}) are forced")
    free(grammars, special)


def forced_tokens(matcher: Matcher, tokens: list[int]) -> Iterator[int]:
    """Those tokens of a text that are not drawn."""
    at = 0
    while at < len(tokens):
        forced = matcher.forced()
        new = forced or tokens[at : at + 1]
        for token in new:
            matcher.accept(token)
        yield from forced
        at += len(new)


def free(grammars: Grammars, special: SpecialTokens) -> None:
    """Masks and tries in the free text of a turn that may call tools."""
    grammar = turn_grammar(None, tool_calls(TOOLS), tokens=special) or ""
    text = "The quick brown fox jumps over the lazy dog.\n    return x**2  # Größe, 漢字\n" * 8
    matcher, masked, tried = grammars.start(grammar), [], []
    for token in grammars.vocabulary.tokenize(text, special=False):
        masked.append(seconds(matcher.mask))
        tried.append(seconds(lambda: matcher.try_accept(token)))  # noqa: B023 - used at once
    spread("mask in free text", masked)
    spread("try a drawn token in free text", tried)


class Runs:
    """The demo model under grammars: what it writes, and what that costs."""

    def __init__(self, model: LlamaModel) -> None:
        self._model, self._context = model, LlamaContext(model, ContextSettings(2048), threads=1)
        self._vocabulary, self._batch = model.vocabulary, Batch(512)
        self.drawn = self.forced = self.masked = 0

    def prompt(self, question: str) -> list[int]:
        """As the demo was trained."""
        environment = Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - no HTML
        environment.filters["tojson"] = json.dumps
        template = environment.from_string(self._model.chat_template() or "")
        messages = [{"role": "user", "content": question}]
        rendered = template.render(messages=messages, tools=TOOLS, add_generation_prompt=True)
        return self._vocabulary.tokenize(rendered, special=True)

    def write(self, prompt: list[int], matcher: Matcher, sampling: SamplingOptions, most: int) -> str | None:
        """One answer, None if it did not end."""
        self._context.forget(0, len(prompt) - 1)
        self._decode(prompt[-1:], len(prompt) - 1)
        written: list[int] = []
        with closing(Sampler(sampling, self._vocabulary, self._context.length)) as sampler:
            while len(written) < most and not matcher.finished:
                new = matcher.forced()
                for token in new:
                    matcher.accept(token)
                self.forced += len(new)
                if not new:
                    new = [self._draw(sampler, matcher)]
                    self.drawn += 1
                    if self._vocabulary.ends_generation(new[0]):
                        break
                self._decode(new, len(prompt) + len(written))
                written += new
            else:
                if not matcher.finished:
                    return None
        return b"".join(map(self._vocabulary.piece, written)).decode()

    def prefill(self, prompt: list[int]) -> None:
        """Bring a prompt into the cache."""
        self._context.forget(0)
        for start in range(0, len(prompt), 512):
            self._decode(prompt[start : start + 512], start)

    def _draw(self, sampler: Sampler, matcher: Matcher) -> int:
        logits = self._context.logits()[0]
        sampler.bias(logits)
        token = sampler.draw(logits)
        if not matcher.try_accept(token):
            self.masked += 1
            apply_mask(matcher.mask(), logits)
            token = sampler.draw(logits)
            matcher.accept(token)
        sampler.accept(token)
        return token

    def _decode(self, tokens: list[int], position: int) -> None:
        self._batch.clear()
        self._batch.add(tokens, position, sequence=0, outputs=1)
        self._context.decode(self._batch)


def conforms(kind: str, text: str) -> bool:
    """Whether an answer is what was asked for."""
    if kind == "schema":
        return bool(Validator(TRIP).is_valid(json.loads(text)))
    parser = Parser(tools=PARAMETERS)
    calls = [event.call for event in [*parser.feed(text), *parser.finish()] if isinstance(event, CallFinished)]
    right = all(Validator(PARAMETERS[call.name]).is_valid(call.arguments) for call in calls)
    return right and (bool(calls) or kind == "auto")


def conformity(number: int) -> None:
    """Let the demo write many times, greedily and wildly, and count."""
    with LlamaModel(paths.asset("demo.gguf")) as model:
        grammars, runs = Grammars(model.vocabulary, TAGS), Runs(model)
        special = SpecialTokens(grammars.tags, grammars.others)
        prompt = runs.prompt("What's the weather in Tokyo?")
        runs.prefill(prompt)
        print(f"demo, {number} answers each: one greedy, the others at temperature 1.5 with seeds; 256 tokens at most")
        for kind, grammar in (
            ("auto", turn_grammar(None, tool_calls(TOOLS), tokens=special)),
            ("required", turn_grammar(None, tool_calls(TOOLS, "required"), tokens=special)),
            ("named", turn_grammar(None, tool_calls(TOOLS, {"name": "book.trip-1"}, parallel=False), tokens=special)),
            ("schema", turn_grammar(json_schema(TRIP), None, tokens=special)),
        ):
            runs.drawn = runs.forced = runs.masked = 0
            texts = []
            for seed in range(number):
                sampling = SamplingOptions(1.5, 0, 1.0, 0.0, seed=seed) if seed else SamplingOptions(temperature=0)
                texts.append(runs.write(prompt, grammars.start(grammar or ""), sampling, 256))
            whole = [text for text in texts if text is not None]
            right = sum(conforms(kind, text) for text in whole)
            tokens = runs.drawn + runs.forced
            print(
                f"  {kind:8} {right} of {len(whole)} conform, {number - len(whole)} cut off;"
                f" forced {runs.forced / tokens:.0%} of {tokens:,} tokens, a mask needed for {runs.masked / tokens:.0%}"
            )


def main() -> None:
    """Measure on the demo, or on the vocabularies that are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=200)
    options = parser.parse_args()
    if options.files:
        for file in options.files:
            masks(file.name, VocabularyFile(file), options.rounds)
    else:
        with LlamaModel(paths.asset("demo.gguf")) as model:
            masks("demo", model, options.rounds)
        conformity(options.answers)


if __name__ == "__main__":
    main()
