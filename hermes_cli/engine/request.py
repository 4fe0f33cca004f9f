"""What is asked of an engine: a prompt, and how it is to be continued. Knows no llama.cpp; it crosses processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from hermes_cli.errors import UsageError

MAX_SEED = 2**32 - 2  # 2**32 - 1 is llama.cpp's LLAMA_DEFAULT_SEED, which stands for "pick one"
MOST_BIASES = 1024
MOST_BREAKERS = 32  # each is looked for in the whole vocabulary, 16 ms for 262,144 tokens
MOST_STOPS, MOST_STOP_CHARACTERS = 64, 1024
MOST_TOP_LOGPROBS = 100


class Range(NamedTuple):
    """The values that a number may have, both ends included."""

    least: float
    most: float


# What llama.cpp's samplers are defined for (llama.h), kept to values with which 32-bit numbers do not overflow.
RANGES = {
    "temperature": Range(0, 100),
    "top_k": Range(-1, 2**31 - 1),
    "top_p": Range(0, 1),
    "min_p": Range(0, 1),
    "typical_p": Range(0, 1),
    "repeat_penalty": Range(0.01, 100),
    "presence_penalty": Range(-100, 100),
    "frequency_penalty": Range(-100, 100),
    "penalty_last_n": Range(-1, 2**20),
    "dry_multiplier": Range(0, 100),
    "dry_base": Range(0, 100),
    "dry_allowed_length": Range(0, 2**20),
    "dry_penalty_last_n": Range(-1, 2**20),
    "mirostat": Range(0, 2),
    "mirostat_tau": Range(0, 100),
    "mirostat_eta": Range(0, 1),
    "seed": Range(0, MAX_SEED),
}
"""By name, as in `SamplingOptions`."""

WHOLE = {"top_k", "penalty_last_n", "dry_allowed_length", "dry_penalty_last_n", "mirostat", "seed"}
"""Those that are whole numbers."""


@dataclass(frozen=True)
class SamplingOptions:
    r"""How the next token is chosen. Defaults are llama.cpp's (common/common.h, common_params_sampling).

    Attributes:
        temperature: 0 takes the most likely token.
        top_k: keep so many of the likeliest tokens; 0 or less keeps all.
        top_p: keep the likeliest tokens that have this probability together; 1 keeps all.
        min_p: keep tokens that have this share of the likeliest one's probability; 0 keeps all.
        typical_p: locally typical sampling; 1 keeps all.
        repeat_penalty: divides the logits of tokens that were there already; 1 changes nothing.
        presence_penalty: is taken from their logits once.
        frequency_penalty: is taken from their logits for each time they were there.
        penalty_last_n: how many of the last tokens these penalties look at; 0 is none, -1 the whole context.
        dry_multiplier: strength of DRY, which penalizes repeated sequences; 0 is off.
        dry_base: its growth with each repeated token.
        dry_allowed_length: tokens of a repetition that are free.
        dry_penalty_last_n: tokens that it searches; -1 is the whole context.
        dry_breakers: texts that repetitions do not reach across.
        mirostat: 0 is off; 1 or 2 keeps the surprise near `mirostat_tau` (bits) and replaces top-k, top-p, min-p and
            typical.
        mirostat_tau, mirostat_eta: its target and its learning rate.
        logit_bias: tokens and what is added to their logits.
        ignore_eos: no token ends the answer.
        seed: of the draw; None picks one.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: one is no number or not in its range; the message names it.
        """
        for name, allowed in RANGES.items():
            _check_number(name, getattr(self, name), allowed)
        if len(self.logit_bias) > MOST_BIASES:
            raise UsageError(
                f"has {len(self.logit_bias):,} entries, more than {MOST_BIASES:,}.",
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
        if len(self.dry_breakers) > MOST_BREAKERS or not all(isinstance(text, str) for text in self.dry_breakers):
            raise UsageError(
                f"is not up to {MOST_BREAKERS} texts.", field="dry_breakers", hint="give fewer, or leave it out."
            )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken without a draw."""
        return self.temperature <= 0

    @property
    def penalizes(self) -> bool:
        """Whether tokens that were there already have other chances."""
        repeats = self.repeat_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
        return (repeats and self.penalty_last_n != 0) or self.dry_multiplier > 0


def _check_number(name: str, value: object, allowed: Range) -> None:
    if name == "seed" and value is None:
        return
    if not _is_number(value, (int,) if name in WHOLE else (int, float)) or not allowed.least <= value <= allowed.most:  # type: ignore[operator]  # NaN is in no range
        what = "a whole number" if name in WHOLE else "a number"
        raise UsageError(
            f"is {value!r}, and must be {what} from {allowed.least:,} to {allowed.most:,}.",
            field=name,
            hint="leave it out for what the model recommends.",
        )


def _is_number(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


SAMPLING_NAMES = tuple(field.name for field in fields(SamplingOptions))


@dataclass(frozen=True)
class ReasoningOptions:
    """How reasoning is recognized, so that its tokens are counted, and the most of them.

    Attributes:
        budget: the most tokens of reasoning; then it is closed, and the answer has to come. None for any.
        inside: the prompt ended in reasoning that the first of `tags` opened.
        tags: pairs of what opens reasoning at the start of a line, and what closes it.
        line_ends: texts that end a line as a line break does.
    """

    budget: int | None = None
    inside: bool = False
    tags: tuple[tuple[str, str], ...] = (("<think>", "</think>"),)
    line_ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to continue.

    Attributes:
        prompt: pieces of text, each tokenized by itself with control tokens parsed (prompting/pieces.py makes them), or
            one list of token ids.
        sampling: how tokens are chosen.
        max_tokens: the most to generate; None is as many as the context length allows.
        stops: texts that end the answer; they are not part of it.
        grammar: what the text has to follow from its beginning (engine/embedded/grammar.py), None for anything.
        reasoning: how it is counted and limited; None counts none.
        top_logprobs: how many alternatives to tell with each token; None tells no log-probabilities.
        client: who asks; engines are fair among clients.
        shift: where the context length ends, go on without the older half of the conversation, instead of ending.
        keep: how many tokens of the prompt a shift leaves at its beginning (the system prompt).
        speculate: whether several tokens may be guessed and checked at once; the text is the same.
    """

    prompt: tuple[str | int, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    grammar: str | None = None
    reasoning: ReasoningOptions | None = None
    top_logprobs: int | None = None
    client: str = ""
    shift: bool = False
    keep: int = 0
    speculate: bool = True

    def __post_init__(self) -> None:
        """Check what does not depend on the model.

        Raises:
            UsageError: a value makes no sense; the message names it.
        """
        if not any(self.prompt) and not (self.prompt and isinstance(self.prompt[0], int)):
            raise UsageError("the prompt is empty.", hint="type a prompt after the model's name, or pipe one in.")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise UsageError(f"is {self.max_tokens}.", field="max_tokens", hint="give 1 or more.")
        if len(self.stops) > MOST_STOPS or any(len(stop) > MOST_STOP_CHARACTERS for stop in self.stops):
            raise UsageError(
                f"there are {len(self.stops)} stop texts, the longest of {max(map(len, self.stops)):,} characters.",
                hint=f"give up to {MOST_STOPS} of up to {MOST_STOP_CHARACTERS:,} characters.",
            )
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS:
            raise UsageError(
                f"is {self.top_logprobs}.", field="top_logprobs", hint=f"give a number from 0 to {MOST_TOP_LOGPROBS}."
            )
        if self.keep < 0 or (self.reasoning and (self.reasoning.budget or 0) < 0):
            raise UsageError("a number of tokens is negative.", hint="give 0 or more.")
