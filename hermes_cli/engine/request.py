"""A request to an engine: a prompt, and how it is to be continued. Any engine takes it, in whatever process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    Tokenize = Callable[[str], Sequence[int]]

MAX_SEED = 2**32 - 2  # 2**32 - 1 is llama.cpp's LLAMA_DEFAULT_SEED, which stands for "pick one"
MAX_BIASES = 1024
MAX_BREAKERS = 32  # each is looked for in the whole vocabulary, 16 ms for 262,144 tokens
MAX_STOPS, MAX_STOP_CHARACTERS = 64, 1024
MAX_TOP_LOGPROBS = 100
SHARE_OF_END = 4  # the smallest budget of reasoning that is ended by a sentence, in lengths of the sentence


@dataclass(frozen=True)
class Parameter:
    """A sampling option that is a number."""

    # least, most: the ends of its range, which belong to it. Ranges are those that llama.cpp's samplers are defined for
    # (llama.h), kept to values with which 32-bit numbers do not overflow
    least: float
    most: float
    whole: bool  # it is an integer
    gguf: str  # its key behind `general.sampling.` in a GGUF file (src/llama-arch.cpp); empty if there is none
    # its names in HTTP requests, as llama.cpp's server and vLLM have them; the last one that is given counts
    api: tuple[str, ...]

    def accepts(self, value: object) -> bool:
        """Return whether a value is a number of the right kind within the range."""
        return _is_number(value, int if self.whole else (int, float)) and self.least <= value <= self.most  # type: ignore[operator]  # NaN is in no range


def _number(default: float | None, least: float, most: float, *, gguf: str = "", api: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - takes the type of the field, as dataclasses.field does
    """Return a field for a number; an integer default, or None, makes it a whole number."""
    parameter = Parameter(least, most, not isinstance(default, float), gguf, api)
    return field(default=default, metadata={"parameter": parameter})


@dataclass(frozen=True)
class SamplingOptions:
    r"""Options of sampling the next token. Defaults are llama.cpp's (common/common.h, common_params_sampling)."""

    temperature: float = _number(0.8, 0, 100, gguf="temp")  # 0 takes the most likely token
    top_k: int = _number(40, -1, 2**31 - 1, gguf="top_k")  # keep so many of the likeliest tokens; 0 or less keeps all
    # keep the likeliest tokens that have this probability together; 1 keeps all
    top_p: float = _number(0.95, 0, 1, gguf="top_p")
    # keep tokens that have this share of the likeliest one's probability; 0 keeps all
    min_p: float = _number(0.05, 0, 1, gguf="min_p")
    typical_p: float = _number(1.0, 0, 1)  # locally typical sampling; 1 keeps all
    # divides the logits of tokens that were there already; 1 changes nothing
    repeat_penalty: float = _number(1.0, 0.01, 100, gguf="penalty_repeat", api=("repetition_penalty", "repeat_penalty"))
    presence_penalty: float = _number(0.0, -100, 100)  # is taken from their logits once
    frequency_penalty: float = _number(0.0, -100, 100)  # is taken from their logits for each time they were there
    # how many of the last tokens these penalties look at; 0 is none, -1 the whole context
    penalty_last_n: int = _number(64, -1, 2**20, gguf="penalty_last_n", api=("repeat_last_n",))
    dry_multiplier: float = _number(0.0, 0, 100)  # strength of DRY, which penalizes repeated sequences; 0 is off
    dry_base: float = _number(1.75, 0, 100)  # its growth with each repeated token
    dry_allowed_length: int = _number(2, 0, 2**20)  # tokens of a repetition that are free
    dry_penalty_last_n: int = _number(-1, -1, 2**20)  # tokens that it searches; -1 is the whole context
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")  # texts that repetitions do not reach across
    # 0 is off; 1 or 2 keeps the surprise near `mirostat_tau` (bits) and replaces top-k, top-p, min-p and typical
    mirostat: int = _number(0, 0, 2, gguf="mirostat")
    # mirostat_tau, mirostat_eta: its target and its learning rate
    mirostat_tau: float = _number(5.0, 0, 100, gguf="mirostat_tau")
    mirostat_eta: float = _number(0.1, 0, 1, gguf="mirostat_eta")
    logit_bias: tuple[tuple[int, float], ...] = ()  # tokens and what is added to their logits
    ignore_eos: bool = False  # no token ends the completion
    seed: int | None = _number(None, 0, MAX_SEED)  # of the draw; None picks one

    def __post_init__(self) -> None:
        """Check every value; UsageError names one that is not a number or not in its range."""
        for name, parameter in PARAMETERS.items():
            value = getattr(self, name)
            if not parameter.accepts(value) and not (name == "seed" and value is None):
                kind = "a whole number" if parameter.whole else "a number"
                raise UsageError(
                    f"is {value!r}, and must be {kind} from {parameter.least:,} to {parameter.most:,}.",
                    field=name,
                    hint="leave it out for what the model recommends.",
                )
        if len(self.logit_bias) > MAX_BIASES:
            raise UsageError(
                f"has {len(self.logit_bias):,} entries, more than {MAX_BIASES:,}.",
                field="logit_bias",
                hint="give fewer.",
            )
        for token, bias in self.logit_bias:
            # -inf forbids a token, as llama.cpp and OpenAI's -100 mean it
            if not _is_number(token, int) or token < 0 or not _is_number(bias, (int, float)) or not bias < math.inf:
                raise UsageError(
                    f"of token {token!r} is {bias!r}.",
                    field="logit_bias",
                    hint="give token numbers from 0 on, and finite numbers.",
                )
        if len(self.dry_breakers) > MAX_BREAKERS or not all(isinstance(text, str) for text in self.dry_breakers):
            raise UsageError(
                f"is not up to {MAX_BREAKERS} texts.", field="dry_breakers", hint="give fewer, or leave it out."
            )


def _is_number(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


PARAMETERS: dict[str, Parameter] = {
    option.name: replace(parameter, api=parameter.api or (option.name,))
    for option in fields(SamplingOptions)
    if (parameter := option.metadata.get("parameter"))
}
"""The numbers among the sampling options, by name.

A new one is a field above and a sampler in embedded/sampler.py; HTTP requests have it with a field in
server/openai/requests.py, the command line with an option in commands/chat.py.
"""


@dataclass(frozen=True)
class ReasoningOptions:
    """Tags of reasoning, for counting its tokens and for its budget."""

    # the most tokens of reasoning; then it is closed, and the answer has to follow. None is no limit
    budget: int | None = None
    inside: bool = False  # the prompt ended in reasoning that the first of `tags` opened
    # pairs of what opens reasoning at the start of a line, and what closes it
    tags: tuple[tuple[str, str], ...] = (("<think>", "</think>"),)
    line_ends: tuple[str, ...] = ()  # texts that end a line as a line break does
    # a sentence that ends reasoning whose budget is used up, as a part of it; small budgets have no room for it
    end: str = ""
    # what the text has to follow behind reasoning that the budget ended, for engines that go on in another completion;
    # None for anything
    grammar: str | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt to continue."""

    # pieces of text, each tokenized by itself with control tokens parsed (prompting/markers.py makes them), or one list
    # of token ids
    prompt: tuple[str | int, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)  # how tokens are chosen
    max_tokens: int | None = None  # the most to generate; None is as many as the context length allows
    stops: tuple[str, ...] = ()  # texts that end the completion; they are not part of it
    # what the text has to follow from its beginning (engine/embedded/grammar.py), None for anything
    grammar: str | None = None
    reasoning: ReasoningOptions | None = None  # how it is counted and limited; None counts none
    top_logprobs: int | None = None  # the number of alternatives with each token; None is no log-probabilities
    client: str = ""  # who asks; engines are fair among clients
    # where the context length ends, go on without the older half of the conversation, instead of ending
    shift: bool = False
    keep: int = 0  # how many tokens of the prompt a shift leaves at its beginning (the system prompt)
    speculate: bool = True  # speculative decoding may be used; the text is the same
    # how that text begins, in the prompt already: the first spelling that the grammar takes counts
    grammar_prefix: tuple[str, ...] = ()
    # tell the log-probabilities of the prompt, with so many alternatives; all of it is computed then. None tells none
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the model; UsageError names a value that makes no sense."""
        if not any(self.prompt) and not (self.prompt and isinstance(self.prompt[0], int)):
            raise UsageError("the prompt is empty.", hint="type a prompt after the model's name, or pipe one in.")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise UsageError(f"is {self.max_tokens}.", field="max_tokens", hint="give 1 or more.")
        if len(self.stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARACTERS for stop in self.stops):
            raise UsageError(
                f"there are {len(self.stops)} stop texts, the longest of {max(map(len, self.stops)):,} characters.",
                hint=f"give up to {MAX_STOPS} of up to {MAX_STOP_CHARACTERS:,} characters.",
            )
        for name in ("top_logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= MAX_TOP_LOGPROBS:
                raise UsageError(f"is {count}.", field=name, hint=f"give a number from 0 to {MAX_TOP_LOGPROBS}.")
        if self.keep < 0 or (self.reasoning and (self.reasoning.budget or 0) < 0):
            raise UsageError("a number of tokens is negative.", hint="give 0 or more.")


@dataclass(frozen=True)
class EmbeddingRequest:
    """Texts to embed."""

    # texts, in which control tokens count as such, or lists of token ids. A text gets the tokens at its ends that the
    # vocabulary adds; a list is taken as it is
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None  # numbers to keep of each embedding, which gets the length 1 again; None is all
    truncate: bool = False  # cut what is longer than the context length, instead of raising an error
    client: str = ""  # who asks; engines are fair among requests


def check_tokens(tokens: Iterable[int], vocabulary: int) -> None:
    """Raise UsageError for a number that is not a token of a vocabulary of so many."""
    wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise UsageError(
            f"{wrong} is not a token; this model's go from 0 to {vocabulary - 1:,}.", hint="take tokens of this model."
        )


def encode(pieces: Iterable[str], tokenize: Tokenize) -> list[int]:
    """Return the tokens of a prompt's pieces, tokenized one by one, so that no token reaches across.

    `tokenize` parses control tokens, and adds nothing at either end.
    """
    return list(chain.from_iterable(encode_each(pieces, tokenize)))


def encode_each(pieces: Iterable[str], tokenize: Tokenize) -> Iterator[Sequence[int]]:
    """Yield what `encode` returns, piece by piece."""
    line: list[int] | None = None
    for number, piece in enumerate(pieces):
        if number == 0:
            yield tokenize(piece)
            continue
        # SentencePiece vocabularies put a space before what they are given, but not behind a line break, and there the
        # line break is always a token of its own.
        line = line or list(tokenize("\n"))
        whole = list(tokenize("\n" + piece))
        yield whole[len(line) :] if whole[: len(line)] == line else tokenize(piece)
