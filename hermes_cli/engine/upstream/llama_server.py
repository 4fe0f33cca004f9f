"""llama.cpp's server, which takes token ids at `/completion` and tokenizes as the embedded engine does.

Its routes and fields: tools/server/README.md of llama.cpp. Each request states every sampling option, so that no
default of the server's counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from hermes_cli.engine.protocol import EngineStats, Logprob, ModelInfo, TokenLogprobs
from hermes_cli.engine.request import PARAMETERS, GenerationRequest, SamplingOptions
from hermes_cli.engine.upstream.dialect import Chunk, Ending, TokenCompletion, any_of, check_common, lark_of
from hermes_cli.engine.upstream.http import UpstreamClient, UpstreamError
from hermes_cli.errors import UsageError

# Our sampling options that the server calls otherwise.
_NAMES = {"penalty_last_n": "repeat_last_n", "dry_breakers": "dry_sequence_breakers"}
_WINDOWS = ("repeat_last_n", "dry_penalty_last_n")  # in tokens; -1 is the whole context, which newer servers refuse
# Samplers of the server that we do not have, switched off.
_OFF = {"dynatemp_range": 0.0, "xtc_probability": 0.0, "top_n_sigma": -1.0}
_BETWEEN = -1  # no token: the server passes numbers in a list of texts on as they are
_SPECIAL = re.compile(r"<\|[^<>|\s]{1,60}\|>|</?[A-Za-z_]{1,30}>")
_LARK = "%llguidance {}\n"  # how the server knows Lark from its own GBNF
# An option of newer releases of llguidance, as hermes' schemas have it: without it strings may have any escapes.
_NEWER = ', "json_allowed_escapes": "nrbtf\\\\\\""'
_PROBE = f'start: %json {{"const": "qz", "x-guidance": {{"item_separator": ", "{_NEWER}}}}}'


class LlamaServer:
    """Implements `Dialect` for llama-server."""

    name = "llama-server"
    adds_space = True

    def __init__(self, client: UpstreamClient, props: Mapping[str, Any]) -> None:
        """Take what `/props` says."""
        self._client, self._props = client, props
        self._control: dict[str, int] = {}
        self._controls: re.Pattern[str] | None = None
        self._takes_lark = False
        self._unknown = ""  # what the server's release of llguidance does not know
        self._context = int(props["default_generation_settings"]["n_ctx"])

    async def model_info(self, tags: Sequence[str], texts: Sequence[str]) -> ModelInfo:
        """Return the facts about the model; of `tags` and `texts` those count that are one token."""
        props, context = self._props, self._context
        listed = await self._client.get("/v1/models")
        meta = next((model.get("meta") or {} for model in listed.get("data") or ()), {})
        sources = {"default": props.get("chat_template"), "tool_use": props.get("chat_template_tool_use")}
        templates = {name: source for name, source in sources.items() if isinstance(source, str) and source}
        bos, eos = str(props.get("bos_token") or ""), str(props.get("eos_token") or "")
        written = [text for source in templates.values() for text in _SPECIAL.findall(source)]
        candidates = list(dict.fromkeys(text for text in (bos, eos, *tags, *texts, *written) if text))
        parsed = await self._tokens(candidates, special=True)
        plain = await self._tokens(candidates, special=False)
        single = {text: tokens[0] for text, tokens in zip(candidates, parsed, strict=True) if len(tokens) == 1}
        added = tuple(text for text, tokens in zip(candidates, plain, strict=True) if len(tokens) == 1)
        self._control = {text: token for text, token in single.items() if text not in added}
        self._controls = any_of(self._control)
        self._takes_lark = await self._accepts_lark(single.get(bos, 0))
        begun = await self._client.post("/tokenize", {"content": "a", "add_special": True})
        return ModelInfo(
            context=context,
            slots=int(props.get("total_slots") or 1),
            trained_context=int(meta.get("n_ctx_train") or context),
            parameters=int(meta.get("n_params") or 0),
            weight_bytes=int(meta.get("size") or 0),
            vocabulary=int(meta.get("n_vocab") or 0),
            templates=templates,
            sampling=_recommended(props["default_generation_settings"].get("params") or {}),
            bos=bos,
            eos=eos,
            adds_bos=bool(bos) and begun["tokens"][:1] == [single.get(bos)],
            control=tuple(self._control),
            added=added,
            tags={tag: single[tag] for tag in tags if tag in single},
            grammars=self._takes_lark,
        )

    async def _accepts_lark(self, token: int) -> bool:
        """Return whether the server holds answers to Lark as hermes writes it, and remember what it does not know.

        One with llguidance makes Lark of a schema. Lark itself is not tried before that: some releases without
        llguidance abort over it. One with an older llguidance writes an error into its log and goes on without the
        grammar, so the answer is looked at.
        """
        made = await self._probe(token, {"json_schema": {"const": "a"}})
        if not str((made.get("generation_settings") or {}).get("grammar")).startswith(_LARK.strip()):
            return False
        for self._unknown in ("", _NEWER):
            asked = {"grammar": self._lark(_PROBE), "n_predict": 8, "temperature": 0.0}
            if (await self._probe(token, asked)).get("content") == '"qz"':
                return True
        return False

    async def _probe(self, token: int, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            body = {"prompt": [token], "n_predict": 0, **fields}
            return cast("Mapping[str, Any]", await self._client.post("/completion", body))
        except UpstreamError:
            return {}

    def _lark(self, rules: str) -> str:
        return _LARK + (rules.replace(self._unknown, "") if self._unknown else rules)

    async def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Return the token ids of each text.

        Control tokens are put in as numbers, and the rest is text to the server: one that nobody knew of stays text.
        """
        if not special or self._controls is None:
            return await self._tokens(texts, special=False)
        parts: list[str | int] = []
        for text in texts:
            parts += [self._control.get(part, part) for part in self._controls.split(text) if part]
            parts.append(_BETWEEN)
        return await self._split(parts, len(texts), special=False)

    async def _tokens(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        parts: list[str | int] = [part for text in texts for part in ((text, _BETWEEN) if text else (_BETWEEN,))]
        return await self._split(parts, len(texts), special=special)

    async def _split(self, parts: list[str | int], count: int, *, special: bool) -> list[list[int]]:
        """Return the tokens of several texts, which one request has with a mark behind each."""
        if not count:
            return []
        body = {"content": parts, "add_special": False, "parse_special": special}
        lists: list[list[int]] = [[]]
        for token in (await self._client.post("/tokenize", body))["tokens"]:
            if token == _BETWEEN:
                lists.append([])
            else:
                lists[-1].append(token)
        if len(lists) != count + 1:
            raise UpstreamError(500, "it tokenizes a list of texts and numbers otherwise than llama-server does")
        return lists[:-1]

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes of tokens; half characters become U+FFFD, as the server's JSON has them."""
        return str((await self._client.post("/detokenize", {"tokens": list(tokens)}))["content"]).encode()

    def check(self, request: GenerationRequest) -> None:
        """Raise UsageError if the request wants what this server does not have."""
        check_common(self.name, request)
        if request.grammar is not None and not self._takes_lark:
            raise UsageError(
                "this llama-server cannot hold an answer to a schema, a grammar or required tools: it was built "
                "without llguidance.",
                hint="leave that out, build it with -DLLAMA_LLGUIDANCE=ON, or run the model in this program.",
            )

    async def stats(self) -> EngineStats:
        """Return nothing: its counters are behind a flag, and in other words."""
        return EngineStats()

    async def complete(self, completion: TokenCompletion) -> AsyncGenerator[Chunk, None]:
        """Yield a completion; the last chunk has its ending.

        Tokens without text yet wait for the next event: an end token is none of the completion's.
        """
        ids: list[int] = []
        logprobs: list[TokenLogprobs] = []
        told, top = 0, completion.request.top_logprobs
        async with aclosing(self._client.stream("/completion", self._body(completion))) as batches:
            async for event in (event async for batch in batches for event in batch):
                text, count = str(event.get("content") or ""), int(event.get("tokens_predicted") or 0)
                ids += event.get("tokens") or ()
                if top is not None:
                    logprobs += [_logprobs(entry, top) for entry in event.get("completion_probabilities") or ()]
                last = bool(event.get("stop"))
                if last and event.get("stop_type") == "eos":
                    count, ids, logprobs = count - 1, ids[:-1], logprobs[:-1]
                if text or last:
                    yield Chunk(text, count - told, tuple(ids), tuple(logprobs), _ending(event) if last else None)
                    told, ids, logprobs = count, [], []
                if last:
                    return
        raise UpstreamError(500, "the stream ended before the answer did")

    def _body(self, completion: TokenCompletion) -> dict[str, Any]:
        request = completion.request
        sampling = request.sampling
        names = (*PARAMETERS, "dry_breakers", "ignore_eos")
        body: dict[str, Any] = {_NAMES.get(name, name): getattr(sampling, name) for name in names} | _OFF
        body |= {name: self._context for name in _WINDOWS if body[name] < 0}
        body["seed"] = -1 if sampling.seed is None else sampling.seed
        body["logit_bias"] = [[token, False if bias == -math.inf else bias] for token, bias in sampling.logit_bias]
        body |= {
            "prompt": list(completion.prompt),
            "n_predict": -1 if completion.max_tokens is None else completion.max_tokens,
            "stop": list(request.stops),
            "stream": True,
            "cache_prompt": True,
            "return_tokens": True,
        }
        if request.top_logprobs is not None:
            body["n_probs"] = max(request.top_logprobs, 1)
        if request.grammar is not None:
            body["grammar"] = self._lark(lark_of(self.name, request.grammar))
        return body


def _recommended(params: Mapping[str, Any]) -> dict[str, str]:
    """Return what the server samples with by default, as a file recommends it, without llama.cpp's own defaults."""
    ours = SamplingOptions()
    values = {name: params.get(_NAMES.get(name, name)) for name, parameter in PARAMETERS.items() if parameter.gguf}
    return {
        PARAMETERS[name].gguf: f"{value:.6g}"
        for name, value in values.items()
        if isinstance(value, (int, float)) and not math.isclose(value, getattr(ours, name), rel_tol=1e-5)
    }


def _ending(event: Mapping[str, Any]) -> Ending:
    timings = event.get("timings") or {}
    return Ending(
        is_cut=event.get("stop_type") == "limit",
        stop=str(event.get("stopping_word") or "") or None,
        cached_tokens=int(timings.get("cache_n") or 0),
    )


def _logprobs(entry: Mapping[str, Any], top: int) -> TokenLogprobs:
    alternatives = tuple(_logprob(one) for one in entry.get("top_logprobs") or ())
    return TokenLogprobs(_logprob(entry), alternatives[:top])


def _logprob(entry: Mapping[str, Any]) -> Logprob:
    return Logprob(int(entry["id"]), bytes(entry.get("bytes") or ()), float(entry["logprob"]))
