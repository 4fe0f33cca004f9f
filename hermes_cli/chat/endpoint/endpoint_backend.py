"""Who a conversation is with, when the model is behind an address."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.endpoint import probe as models
from hermes_cli.chat.endpoint import request
from hermes_cli.chat.endpoint.chat_completions import CompletionReader
from hermes_cli.chat.endpoint.failures import EndpointError, Told, broken_off, error_of
from hermes_cli.chat.endpoint.http_client import EndpointClient, Retries
from hermes_cli.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from hermes_cli.chat.endpoint.address import EndpointAddress
    from hermes_cli.chat.endpoint.probe import EndpointModel
    from hermes_cli.chat.options import ChatOptions
    from hermes_cli.generation import Event, Message

_SEPARATED = {"hermes"}  # kinds of servers that never leave a thought in the content


class EndpointBackend:
    """A model behind an OpenAI-compatible API: a `chat.partner.Partner`."""

    def __init__(self, wire: EndpointClient, served: EndpointModel, warn: Callable[[str], object]) -> None:
        """Nothing is asked yet.

        Args:
            wire: to the server; it belongs to this partner from now on.
            served: the model.
            warn: is told of calls that cannot be run.
        """
        self._wire, self._served, self._warn = wire, served, warn
        self._counts = served.kind in {"hermes", "llama.cpp", "vllm"}

    @property
    def name(self) -> str:
        """Of the model; llama.cpp's server names it by the path of its file, of which the end is enough."""
        name = self._served.name
        return re.split(r"[/\\]", name)[-1] if name.endswith(".gguf") else name

    @property
    def context(self) -> int | None:
        """Tokens that one request can use; None where nobody says."""
        return self._served.context

    @property
    def reasons(self) -> bool | None:
        """Whether it can reason before it answers; None where nobody says."""
        return self._served.reasons

    @property
    def takes_tools(self) -> bool | None:
        """Whether it can call tools; None where nobody says."""
        return self._served.takes_tools

    @property
    def details(self) -> dict[str, Any]:
        """What `--json` tells of it."""
        return {"context_length": self.context, "endpoint": self._wire.address.base}

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """As `Partner` says. Until the first event, what fails is tried again where that may help.

        Raises:
            ContextFullError: the messages alone fill the context.
            UsageError: the server refuses the request or the key, or cannot do what the manner asks for.
            NetworkError: it cannot be reached, or broke off.
            HermesError: as the server says.
        """
        body = request.body(self._served, messages, tools, manner)
        tries = Retries(self._wire.address, self._wire.note)
        while True:
            begun = False
            try:
                async with aclosing(self._once(body, manner)) as events:
                    async for event in events:
                        begun = True
                        yield event
            except EndpointError as refused:
                told = refused.told
            else:
                return
            if begun:
                raise broken_off(told, self._wire.address)
            await tries.after(told, error_of(told, self._wire.address, self.name, manner.max_tokens))

    async def count(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
    ) -> int | None:
        """Tokens of the prompt, where the server has a way to count them: llama.cpp's, vLLM's and this program's."""
        if not self._counts:
            return None
        asked = request.prompt(self._served, messages, tools, manner)
        try:
            return await self._counted(asked)
        except (EndpointError, NetworkError):  # the next answer tells why
            return None

    async def rest(self) -> None:
        """Nothing is held that costs anything."""

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def _once(self, body: dict[str, Any], manner: ChatOptions) -> AsyncGenerator[Event, None]:
        reply = CompletionReader(separated=self._served.kind in _SEPARATED, warn=self._warn)
        url = f"{self._wire.address.base}/chat/completions"
        try:
            async with aclosing(self._wire.chunks(url, body, lambda: reply.ended)) as chunks:
                async for chunk in chunks:
                    for event in reply.read(chunk):
                        yield event
        except EndpointError as refused:
            if refused.told.status or not reply.ended:  # what breaks after the end is no loss
                raise
        if not reply.ended:
            raise EndpointError(Told(0, "the stream ended before the answer did"))
        for last in reply.finish(self.context, manner.max_tokens):
            yield last

    async def _counted(self, asked: dict[str, Any]) -> int | None:
        root = self._wire.address.root
        if self._served.kind == "vllm":
            told = await self._wire.json(f"{root}/tokenize", asked)
            count = told.get("count") if isinstance(told, dict) else None
            return count if isinstance(count, int) else None
        told = await self._wire.json(f"{root}/apply-template", asked)
        text = told.get("prompt") if isinstance(told, dict) else None
        if not isinstance(text, str):
            return None
        wanted = {"content": text, "add_special": True, "parse_special": True, "model": self.name}
        told = await self._wire.json(f"{root}/tokenize", wanted)
        tokens = told.get("tokens") if isinstance(told, dict) else None
        return len(tokens) if isinstance(tokens, list) else None


async def connect(
    address: EndpointAddress, model: str | None, note: Callable[[str], object], warn: Callable[[str], object]
) -> EndpointBackend:
    """The model behind an address.

    Args:
        address: where.
        model: its name; None takes the only one there is.
        note: is told of waits.
        warn: is told of calls that cannot be run.

    Raises:
        UsageError: the key is not accepted, or there are several models and none was named.
        NotFoundError: there is no such model, or no API.
        NetworkError: it cannot be reached.
    """
    wire = EndpointClient(address, note)
    try:
        return EndpointBackend(wire, await models.find(wire, model), warn)
    except BaseException:
        await wire.close()
        raise
