"""Tokenizing by an engine's `/tokenize`, with what a file on this disk says of the vocabulary (vLLM, SGLang).

Such a route makes control tokens of text that spells them. So control tokens go in as numbers, and what lies between
them is asked for, each text once: a conversation that goes on costs its new message.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from hermes_cli.engine.upstream.dialect import any_of
from hermes_cli.engine.upstream.http import UpstreamClient
from hermes_cli.engine.upstream.tokenizer_files import TokenizerFacts
from hermes_cli.errors import UsageError

MOST_CHARACTERS = 1 << 22  # of all texts whose tokens are kept
_OPENING = re.compile(r"[^\w\s]+(?=.)")
_PROBE = "\n  Hello, wörld 東京 🙂 12345 {}"


class ServedTokenizer:
    """Text to tokens by the engine, tokens to text by the file."""

    def __init__(self, client: UpstreamClient, model: str, facts: TokenizerFacts) -> None:
        """Take the name of the model in requests, and the facts of its vocabulary."""
        self.facts = facts
        self._client, self._model = client, model
        self._known: OrderedDict[str, list[int]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[list[int]]] = {}
        self._characters = 0
        self._special = any_of((*facts.control, *facts.added))
        self._added = any_of(facts.added)
        self._ids = {**facts.added, **facts.control}

    async def check(self) -> None:
        """Raise UsageError if the engine has another vocabulary than the file."""
        special = [text for text in self._ids if text.strip() == text]
        tokens = await self._ask("".join(special) + _PROBE)
        if b"".join(map(self.facts.piece, tokens)).decode("utf-8", "replace") != "".join(special) + _PROBE or tokens[
            : len(special)
        ] != [self._ids[text] for text in special]:
            raise UsageError(
                f"{self.facts.source} is not of the model at {self._client.address}: it has another vocabulary.",
                hint="give the folder or GGUF file of the model that runs there with --tokenizer.",
            )

    async def begins_with_bos(self) -> bool:
        """Return whether the engine puts BOS before a text by itself."""
        body = {"model": self._model, "prompt": "a", "add_special_tokens": True}
        tokens = (await self._client.post("/tokenize", body))["tokens"]
        return bool(self.facts.bos) and tokens[:1] == [self._ids.get(self.facts.bos)]

    async def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Return the token ids of each text; without `special` no control token, but those of `added`."""
        return list(await asyncio.gather(*(self._tokens(text, special=special) for text in texts)))

    async def _tokens(self, text: str, *, special: bool) -> list[int]:
        if not self.facts.byte_level and special:
            return await self._asked(text)  # SentencePiece puts a space before each text that is asked for
        pattern = self._special if special else self._added
        parts = [part for part in (pattern.split(text) if pattern else (text,)) if part]
        asked = (self._asked(piece) for part in parts if part not in self._ids for piece in self._unspelled(part))
        answers = iter(await asyncio.gather(*asked))
        tokens: list[int] = []
        for part in parts:
            if part in self._ids and (special or part in self.facts.added):
                tokens.append(self._ids[part])
            else:
                tokens += [token for _ in self._unspelled(part) for token in next(answers)]
        return tokens

    def _unspelled(self, text: str) -> Iterable[str]:
        """Cut a text within each control token that it spells, where letters begin: tokens seldom reach across."""
        start = 0
        for match in self._special.finditer(text) if self._special else ():
            opening = _OPENING.match(match[0])
            cut = match.start() + (len(opening[0]) if opening else 1)
            yield text[start:cut]
            start = cut
        yield text[start:]

    async def _asked(self, text: str) -> list[int]:
        if not text:
            return []
        while (question := self._asking.get(text)) is not None:  # somebody else asks already
            await asyncio.wait((question,))
        if (tokens := self._known.get(text)) is not None:
            self._known.move_to_end(text)
            return tokens
        self._asking[text] = question = asyncio.ensure_future(self._ask(text))
        try:
            tokens = self._known[text] = await question
        finally:
            del self._asking[text]
            question.cancel()
        self._characters += len(text)
        while self._characters > MOST_CHARACTERS:
            self._characters -= len(self._known.popitem(last=False)[0])
        return tokens

    async def _ask(self, text: str) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        return [int(token) for token in (await self._client.post("/tokenize", body))["tokens"]]
