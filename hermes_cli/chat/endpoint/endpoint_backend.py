"""A chat backend whose model is behind an address."""

from __future__ import annotations

import os
import re
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.endpoint import probe
from hermes_cli.chat.endpoint.address import read_address
from hermes_cli.chat.endpoint.chat_completions import CompletionReader, prompt_body, request_body
from hermes_cli.chat.endpoint.failures import EndpointError
from hermes_cli.chat.endpoint.http_client import EndpointClient, Retries
from hermes_cli.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    from hermes_cli.chat.endpoint.address import EndpointAddress
    from hermes_cli.chat.endpoint.probe import EndpointModel
    from hermes_cli.chat.options import ChatOptions
    from hermes_cli.event_loop import EventLoop
    from hermes_cli.generation import Event, Message

_COUNTS_TOKENS = {"hermes", "llama.cpp", "vllm"}  # kinds of servers with routes for it
_SEPARATES_REASONING = {"hermes"}  # kinds of servers that never leave reasoning in the content


class EndpointBackend:
    """A model behind an OpenAI-compatible API. It closes its client; `warn` gets calls that cannot be run."""

    def __init__(self, client: EndpointClient, model: EndpointModel, warn: Callable[[str], object]) -> None:
        self._client, self._model, self._warn = client, model, warn
        self.context_length = model.context_length
        self.supports_reasoning, self.supports_tools = model.supports_reasoning, model.supports_tools
        self.details = {"context_length": model.context_length, "endpoint": client.address.base}

    @property
    def name(self) -> str:
        """Name of the model; of the path of a file, as llama.cpp's server has it, only the end."""
        name = self._model.name
        return re.split(r"[/\\]", name)[-1] if name.endswith(".gguf") else name

    async def generate(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of the next turn. Until the first one, failures are retried where that may help."""
        address = self._client.address
        body = request_body(self._model, messages, tools, options)
        retries = Retries(address, self._client.note)
        while True:
            begun = False
            try:
                async with aclosing(self._generate_once(body, options)) as events:
                    async for event in events:
                        begun = True
                        yield event
            except EndpointError as error:
                failure = error
            else:
                return
            if begun:
                raise failure.as_broken_answer(address)
            await retries.wait(failure, failure.as_user_error(address, self.name, options.max_tokens))

    async def count_tokens(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
    ) -> int | None:
        """Return the number of tokens in the prompt, where the server can count them."""
        if self._model.kind not in _COUNTS_TOKENS:
            return None
        try:
            return await self._request_count(prompt_body(self._model, messages, tools, options))
        except (EndpointError, NetworkError):  # the next answer tells why
            return None

    async def unload(self) -> None:
        """Do nothing: no memory is held."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _generate_once(self, body: dict[str, Any], options: ChatOptions) -> AsyncGenerator[Event, None]:
        reader = CompletionReader(reasoning_separated=self._model.kind in _SEPARATES_REASONING, warn=self._warn)
        url = f"{self._client.address.base}/chat/completions"
        try:
            async with aclosing(self._client.stream(url, body, lambda: reader.is_finished)) as chunks:
                async for chunk in chunks:
                    for event in reader.feed(chunk):
                        yield event
        except EndpointError as error:
            if error.status or not reader.is_finished:  # what breaks after the end is no loss
                raise
        if not reader.is_finished:
            raise EndpointError(0, "the stream ended before the answer did")
        for last in reader.finish(self.context_length, options.max_tokens):
            yield last

    async def _request_count(self, body: dict[str, Any]) -> int | None:
        root = self._client.address.root
        if self._model.kind == "vllm":
            count = _field(await self._client.json(f"{root}/tokenize", body), "count")
            return count if isinstance(count, int) else None
        prompt = _field(await self._client.json(f"{root}/apply-template", body), "prompt")
        if not isinstance(prompt, str):
            return None
        body = {"content": prompt, "add_special": True, "parse_special": True, "model": self.name}
        tokens = _field(await self._client.json(f"{root}/tokenize", body), "tokens")
        return len(tokens) if isinstance(tokens, list) else None


def _field(answer: object, name: str) -> object:
    return answer.get(name) if isinstance(answer, dict) else None


async def connect(
    address: EndpointAddress, model: str | None, note: Callable[[str], object], warn: Callable[[str], object]
) -> EndpointBackend:
    """Return the model behind an address.

    Args:
        address: address of the API.
        model: name of the model; None takes the only one there is.
        note: called with waits.
        warn: called with tool calls that cannot be run.

    Raises:
        UsageError: the key is not accepted, or there are several models and none was named.
        NotFoundError: no such model, or no API.
        NetworkError: the server cannot be reached.
    """
    client = EndpointClient(address, note)
    try:
        return EndpointBackend(client, await probe.find_model(client, model), warn)
    except BaseException:
        await client.close()
        raise


class Endpoint:
    """Opens models behind one address."""

    def __init__(
        self,
        address: str,
        event_loop: EventLoop,
        note: Callable[[str], object],
        warn: Callable[[str], object],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Parse the address; nothing is requested yet.

        Args:
            address: as it was typed.
            event_loop: where connections live.
            note: called with waits.
            warn: called with a key that is sent unencrypted, and with tool calls that cannot be run.
            environ: where keys are.

        Raises:
            UsageError: not an address, or its key cannot be one.
        """
        self._address = read_address(address, environ)
        self._event_loop, self._note, self._warn = event_loop, note, warn
        if self._address.exposes_key:
            warn(
                f"the key in {self._address.variable} goes to {self._address.host} unencrypted: others on the way can "
                "read it."
            )

    def names(self) -> list[str]:
        """Return the names of its models."""
        return self._event_loop.run(self._list_names())

    def open(self, name: str | None) -> EndpointBackend:
        """Open a model, to be closed by the caller; errors are those of `connect`."""
        return self._event_loop.run(connect(self._address, name, self._note, self._warn))

    @contextmanager
    def opening(self, name: str | None) -> Iterator[Callable[[], EndpointBackend]]:
        """Yield a function that opens a model. Nothing can begin earlier: it takes one request to the server."""
        yield lambda: self.open(name)

    async def _list_names(self) -> list[str]:
        client = EndpointClient(self._address, self._note)
        try:
            return [probe.model_id(model) for model in await probe.list_models(client)]
        finally:
            await client.close()
