"""Sampling: llama.cpp's chain of samplers, applied to the few tokens that it can choose at all.

llama.cpp's samplers work on an array of all tokens: with 262,144 of them each draw takes 0.4 ms, with penalties 1.6 ms.
Which tokens can come is found in NumPy first, 0.06 ms with the draw, and exactly: the chain would throw away all
others, so that the token drawn is the one that it draws from all. (Of equal logits at the edge of top-k, llama.cpp
keeps any.) Only sampling without top-k and with top-p below 1 or nothing else to cut needs all tokens.
"""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.llama import Owned
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.engine.protocol import Logprob, TokenLogprobs
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import EngineError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORBIDDING_BIAS = -100.0  # OpenAI's API reference, logit_bias: "-100 ... should result in a ban"
MOST_BIAS = 1e6  # more is as certain, and its products with penalties and temperatures stay 32-bit numbers
COLDEST = 1e-30  # below this temperature 32-bit logits overflow, and only equal ones have a chance beside the best
MIROSTAT_TOKENS = 100  # `m`, from how many tokens mirostat 1 estimates the distribution (common/sampling.cpp)
MIN_KEEP = 1  # tokens that every sampler leaves
BLOCK = 64  # tokens of which the likeliest stands for all; fastest from 128,000 to 262,144 tokens
FLAT = 80.0  # a logit so far below the best has a 32-bit probability near or at zero, whose logarithm is not a number
ROUNDING = 1e-3  # more than how differently two libraries round a logarithm
MOST_TEMPLATES = 4  # samplers of DRY that are kept to copy

LOWEST = np.finfo(np.float32).min  # only -inf, a token that is impossible, is below
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data (llama.h)


class Sampler(Owned):
    """The sampler chain of one request, with the tokens that its penalties look at.

    With each output: `bias` once, `draw` once, or again after a mask, and `accept` what was chosen in the end.
    """

    _free = staticmethod(llama_cpp.llama_sampler_free)

    def __init__(
        self, sampling: SamplingOptions, vocabulary: Vocabulary, trained_context: int, prompt: Sequence[int] = ()
    ) -> None:
        """Build the chain: 0.1 ms, but 70 ms for the first request with new settings of DRY.

        `trained_context` is the number of tokens that "the whole context" stands for in the reach of penalties.
        """
        self._bias = _biases(sampling, vocabulary)
        self._greedy = sampling.temperature < COLDEST
        # How many of the last tokens penalties look at, and DRY; 0 where they are off, as in llama.cpp.
        penalized = sampling.repeat_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
        repeats = sampling.penalty_last_n if penalized else 0
        dry = sampling.dry_penalty_last_n if sampling.dry_multiplier > 0 and sampling.dry_base >= 1 else 0
        repeats, dry = (trained_context if window < 0 else window for window in (repeats, dry))
        self._history = _History(max(repeats, dry), prompt) if repeats or dry else None
        self._table = np.empty(0, _CANDIDATE)
        self._pointer: Any = None  # to the table, for C
        self._array: Any = llama_cpp.llama_token_data_array()
        if self._greedy and not self._history:
            return  # needs no chain
        self._count = 1 if self._greedy else 0 if sampling.mirostat else max(sampling.top_k, 0)
        self._depth = _depth(sampling)
        self._handle = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for link in _links(sampling, vocabulary, repeats, dry, greedy=self._greedy):
            llama_cpp.llama_sampler_chain_add(self._handle, link)  # the chain owns its links

    def bias(self, logits: NDArray[np.float32]) -> None:
        """Add `logit_bias`, and -inf for `ignore_eos` and suppressed tokens, in place, once per output."""
        if self._bias is not None:
            tokens, values = self._bias
            logits[tokens] += values

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Sample a token without accepting it; for mirostat this counts as accepted.

        The logits of one output have to be writable, and are the same afterwards.

        Raises:
            EngineError: no token is possible, or the model computed no numbers.
        """
        if self._greedy and not self._history:
            token = int(logits.argmax())
            _check(float(logits[token]))
            return token
        tokens = self._candidates(logits)
        values = logits if tokens is None else logits[tokens]
        _check(float(values.max(initial=-np.inf)))
        size = values.size
        if size > self._table.size:
            self._table = np.empty(max(size, 2 * self._table.size), _CANDIDATE)
            self._pointer = self._table.ctypes.data_as(llama_cpp.llama_token_data_p)
        self._table["id"][:size] = _numbers(size) if tokens is None else tokens
        self._table["logit"][:size] = values
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._pointer, size, -1, False
        llama_cpp.llama_sampler_apply(self.handle, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            raise EngineError("llama.cpp's samplers chose no token.", hint="this is a bug in hermes; please report it.")
        return int(array.data[array.selected].id)

    def accept(self, token: int) -> None:
        """Record a token of the completion for penalties."""
        if self._history:
            self._history.add(token)

    def _candidates(self, logits: NDArray[np.float32]) -> NDArray[np.intp] | None:
        """Return all tokens that the chain can choose, and maybe more, in their order; None for the vocabulary."""
        if not self._count and self._depth == np.inf:
            if self._history:
                self._history.sync(self.handle)
            return None
        if not self._history:
            return self._likely(logits)
        # What penalties do to a token's rank is not known yet, so those that they look at are all candidates, and the
        # others are ranked without them.
        seen = self._history.sync(self.handle)
        kept = logits[seen]
        logits[seen] = -np.inf
        others = self._likely(logits)
        logits[seen] = kept
        tokens = np.concatenate((others, seen[kept != -np.inf]))
        tokens.sort()
        return tokens

    def _likely(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return candidates by their logits alone."""
        if self._count:
            return _top(logits, self._count)
        highest = logits.max()
        return np.flatnonzero(~(logits < np.maximum(highest - np.float32(self._depth), LOWEST)))


class _History:
    """The tokens that penalties look at. The chain accepts them late, so that of a long prompt only they matter."""

    def __init__(self, window: int, prompt: Sequence[int]) -> None:
        self._new = deque(prompt, maxlen=window)
        self._accepted: deque[int] = deque()
        self._window = window
        self._counts: dict[int, int] = {}
        self.add = self._new.append

    def sync(self, chain: Any) -> NDArray[np.intp]:  # noqa: ANN401 - as above
        """Pass new tokens to the chain; return the tokens that it looks at then."""
        counts, accepted, accept = self._counts, self._accepted, llama_cpp.llama_sampler_accept
        for token in self._new:
            accept(chain, token)
            accepted.append(token)
            counts[token] = counts.get(token, 0) + 1
            if len(accepted) > self._window:
                old = accepted.popleft()
                counts[old] -= 1
                if not counts[old]:
                    del counts[old]
        self._new.clear()
        return np.fromiter(counts, np.intp, len(counts))


class _DrySampler(Owned):
    """A sampler of DRY, to be copied with its settings and without its history."""

    _free = staticmethod(llama_cpp.llama_sampler_free)

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - ctypes pointers have no common type
        self._handle = handle


@lru_cache(MOST_TEMPLATES)
def _dry_template(
    vocabulary: Vocabulary, multiplier: float, base: float, allowed_length: int, window: int, breakers: tuple[str, ...]
) -> _DrySampler:
    """Return a sampler to copy: llama.cpp takes 15 ms to find each breaker in the vocabulary."""
    texts = [text.encode("utf-8", "replace") for text in breakers]
    return _DrySampler(
        llama_cpp.llama_sampler_init_dry(
            vocabulary._vocab,  # noqa: SLF001 - the C pointer
            multiplier,
            base,
            allowed_length,
            window,
            (ctypes.c_char_p * len(texts))(*texts),
            len(texts),
        )
    )


def token_logprobs(logits: NDArray[np.float32], token: int, top: int, vocabulary: Vocabulary) -> TokenLogprobs:
    """Return log-probabilities (base e, temperature 1) of a token and of the `top` likeliest ones, the best first.

    The logits are those of the model, before biases and masks.
    """
    highest = float(logits.max())
    powers = logits - np.float32(highest)
    np.exp(powers, out=powers)
    total = highest + math.log(float(powers.sum()))

    def logprob(token: int) -> Logprob:
        return Logprob(token, vocabulary.piece(token), float(logits[token]) - total)

    likely = _top(logits, top)
    best = likely[np.argsort(-logits[likely], kind="stable")][:top]
    return TokenLogprobs(logprob(token), tuple(map(logprob, best.tolist())))


def _top(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the `count` likeliest tokens and some more, in their order; NaNs are included, -inf is not.

    The tokens are dealt out to blocks, and each block's best is found. The `count`-th of those, the bound, is not above
    the `count`-th of all logits, and who is not below the bound is in one of the few blocks whose best is not.
    """
    columns = logits.size // BLOCK
    if count > columns:
        return np.flatnonzero(logits != -np.inf)
    blocks, rest = logits[: BLOCK * columns].reshape(BLOCK, columns), logits[BLOCK * columns :]
    best = np.concatenate((blocks.max(axis=0), rest))  # what is left over are blocks of one
    bound = np.partition(best, best.size - count)[best.size - count] if count else np.inf
    bound = np.maximum(bound, LOWEST)
    chosen = np.flatnonzero(~(best < bound))  # NaN is neither below nor above
    few = chosen[: chosen.searchsorted(columns)]
    rows, places = np.divmod(np.flatnonzero(~(blocks[:, few] < bound)), few.size or 1)
    return np.concatenate((rows * columns + few[places], chosen[few.size :] + (BLOCK - 1) * columns))


@lru_cache(maxsize=2)
def _numbers(count: int) -> NDArray[np.int32]:
    """Return 0, 1, 2 and so on."""
    return np.arange(count, dtype=np.int32)


def _check(highest: float) -> None:
    """Check the largest logit."""
    if highest == -math.inf:
        raise EngineError(
            "no token is possible here: logit_bias, ignore_eos or the grammar forbid all of them.",
            hint="forbid less.",
        )
    if not highest < math.inf:
        raise EngineError(
            "the model computed no numbers.",
            hint="its file may be damaged: `hermes verify` says whether it is.",
        )


def _biases(sampling: SamplingOptions, vocabulary: Vocabulary) -> tuple[NDArray[np.intp], NDArray[np.float32]] | None:
    """Return tokens and the values to add to their logits; None if there are none."""
    added: dict[int, float] = {}
    for token, value in sampling.logit_bias:
        if token >= vocabulary.size:
            raise UsageError(
                f"has token {token}, and this model's go from 0 to {vocabulary.size - 1:,}.",
                field="logit_bias",
                hint="take the numbers from this model's tokenizer.",
            )
        added[token] = added.get(token, 0.0) + value
    added = {token: -math.inf if v <= FORBIDDING_BIAS else min(v, MOST_BIAS) for token, v in added.items()}
    count = ctypes.c_int32()  # of the tokens in tokenizer.ggml.suppress_tokens
    suppressed = llama_cpp.llama_vocab_get_suppress_tokens(vocabulary._vocab, ctypes.byref(count))  # noqa: SLF001 - the C pointer
    never = [*suppressed[: count.value]] if count.value else []
    if sampling.ignore_eos:
        never += vocabulary.ends
    added.update(dict.fromkeys(never, -math.inf))
    if not added:
        return None
    return np.fromiter(added, np.intp, len(added)), np.fromiter(added.values(), np.float32, len(added))


def _depth(sampling: SamplingOptions) -> float:
    """Return how far below the best logit a token can be chosen, where top-k does not say how many can."""
    if sampling.mirostat:
        return FLAT * sampling.temperature
    if sampling.typical_p < 1:
        return FLAT
    if sampling.min_p > 0 and sampling.top_p >= 1:  # top-p needs the probabilities of all
        return ROUNDING - math.log(sampling.min_p)
    return math.inf


def _links(sampling: SamplingOptions, vocabulary: Vocabulary, repeats: int, dry: int, *, greedy: bool) -> Iterator[Any]:
    """Yield the samplers in llama.cpp's order (common/sampling.cpp, common_sampler_init; common/common.h, samplers)."""
    if repeats:
        yield llama_cpp.llama_sampler_init_penalties(
            vocabulary.size,
            repeats,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
    if dry:
        multiplier, base, allowed_length = sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length
        template = _dry_template(vocabulary, multiplier, base, allowed_length, dry, sampling.dry_breakers)
        yield llama_cpp.llama_sampler_clone(template.handle)
    seed = llama_cpp.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    if greedy:
        yield llama_cpp.llama_sampler_init_greedy()
    elif sampling.mirostat:
        yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
        if sampling.mirostat == 1:
            yield llama_cpp.llama_sampler_init_mirostat(vocabulary.size, seed, tau, eta, MIROSTAT_TOKENS)
        else:
            yield llama_cpp.llama_sampler_init_mirostat_v2(seed, tau, eta)
    else:
        yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
        yield llama_cpp.llama_sampler_init_typical(sampling.typical_p, MIN_KEEP)
        yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, MIN_KEEP)
        yield llama_cpp.llama_sampler_init_min_p(sampling.min_p, MIN_KEEP)
        yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
        yield llama_cpp.llama_sampler_init_dist(seed)
