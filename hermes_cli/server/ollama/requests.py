"""Ollama's requests as chats and completions: parsed as those are, and refused for the same reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from hermes_cli.errors import NotFoundError, UsageError
from hermes_cli.server.ollama.schemas import OllamaChatRequest, OllamaOptions, OllamaPromptRequest, OllamaRequest
from hermes_cli.server.openai.completions import parse_completion
from hermes_cli.server.openai.requests import ChatRequest, CompletionRequest
from hermes_cli.server.parsed_request import ChatMessages, FieldNames, ParsedRequest, parse_chat
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import MOST_WARNINGS, aside, warn
from hermes_cli.server.routing import ApiRoute

ollama_route = partial(ApiRoute, tag="Ollama", any_media_type=True)
LATEST = ":latest"  # the tag that Ollama adds to names without one
# Options of loading a model: the server's settings decide about them.
LOADING = frozenset(
    {
        *("num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "low_vram", "f16_kv", "use_mmap", "use_mlock"),
        *("vocab_only", "logits_all", "embedding_only", "num_keep", "draft_num_predict"),
    }
)
_SAME = OllamaOptions.model_fields.keys() - {"num_predict", "num_ctx", "stop"}
_NAMES = {
    **{name: f"options.{name}" for name in (*_SAME, "stop")},
    "max_tokens": "options.num_predict",
    "response_format": "format",
    "response_format.schema": "format",
    "prompt": "prompt",
}
_API = "Ollama's"
_PROMPT_ONLY = {
    "context": "send the conversation to /api/chat instead.",
    "images": "these models read only text: the model does not support images.",
    "template": "send a rendered prompt with raw instead, or start the server with --template.",
}


async def parse_chat_request(body: OllamaChatRequest, client: str, pool: Pool) -> ParsedRequest:
    """Parse a request to /api/chat that has messages."""
    conversation = await aside(client, lambda: OllamaMessages(body.messages or ()))
    return await _parse(body, client, pool, conversation, body.tools)


async def parse_prompt_request(body: OllamaPromptRequest, client: str, pool: Pool) -> ParsedRequest:
    """Parse a request to /api/generate that has a prompt: a chat, or raw text."""
    for field, hint in _PROMPT_ONLY.items():
        if getattr(body, field):
            raise UsageError("is not supported.", field=field, hint=hint)
    if not body.raw and not body.suffix:
        conversation = ChatMessages()
        if body.system:
            conversation.append({"role": "system", "content": body.system}, "system", content="system")
        conversation.append({"role": "user", "content": body.prompt}, "prompt", content="prompt")
        return await _parse(body, client, pool, conversation, None)
    if body.system:
        hint = "put it into the prompt, which is taken as it stands."
        raise UsageError("cannot go together with raw, or a suffix.", field="system", hint=hint)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    completion = CompletionRequest.model_construct(
        prompt=body.prompt or "", suffix=body.suffix, logprobs=logprobs, **_shared(body, pool)
    )
    fields = FieldNames({**_NAMES, "messages": "prompt"}, _API, "ollama")
    with fields.renaming():
        return replace(await parse_completion(completion, client), fields=fields)


def served_name(pool: Pool, name: str) -> str:
    """Return the name of a model, without the tag that Ollama's clients add, unless one is called so."""
    try:
        pool.planned(name)
    except NotFoundError:
        return name.removesuffix(LATEST)
    return name


async def _parse(
    body: OllamaRequest, client: str, pool: Pool, conversation: ChatMessages, tools: list[Any] | None
) -> ParsedRequest:
    chat = ChatRequest.model_construct(
        messages=conversation.messages,
        tools=tools,
        think=body.think,
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs if body.logprobs else None,
        **_shared(body, pool),
    )
    return await parse_chat(chat, client, FieldNames({**_NAMES, **conversation.paths}, _API, "ollama"))


def _shared(body: OllamaRequest, pool: Pool) -> dict[str, Any]:
    """Return the fields that a chat and a completion have in common; warn of what changes nothing."""
    options, name = body.options or OllamaOptions(), served_name(pool, body.named)
    others = (option for option, value in (options.model_extra or {}).items() if value is not None)
    for unknown in islice(others, MOST_WARNINGS):
        why = "is set when the server starts" if unknown in LOADING else "is not known here"
        warn(f"options.{unknown[:40]} {why}, and changes nothing.")
    context = pool.describe(name).context_length
    if options.num_ctx is not None and options.num_ctx > context:
        warn(f"options.num_ctx is {options.num_ctx}; the context of this model is {context} tokens.")
    if body.truncate or body.shift:
        warn("a conversation that is longer than the context is refused, and not cut.")
    limit = options.num_predict
    return {
        "model": name,
        "stream": body.stream is not False,
        "max_tokens": -1 if limit is None else max(limit, -1),
        "stop": options.stop,
        "response_format": _response_format(body.format),
        "keep_alive": body.keep_alive,
        **{option: getattr(options, option) for option in _SAME},
    }


def _response_format(value: object) -> dict[str, Any] | None:
    if value in (None, ""):
        return None
    if value == "json":
        return {"type": "json_object"}
    if isinstance(value, str):
        raise UsageError(f"is {value[:40]!r}.", field="format", hint="there are json and a JSON schema.")
    return {"type": "json_schema", "schema": value}


class OllamaMessages(ChatMessages):
    """Ollama's messages as those of a chat."""

    def __init__(self, messages: Sequence[object]) -> None:
        """Translate all messages."""
        super().__init__()
        self._ids: set[str] = set()  # of the calls of the last turn
        for index, message in enumerate(messages):
            self._add(message, f"messages[{index}]")

    def _add(self, message: object, path: str) -> None:
        if not isinstance(message, dict):
            hint = 'write it like this: {"role": "user", "content": "Hi"}.'
            raise UsageError("must be an object.", field=path, hint=hint)
        role, content = message.get("role"), message.get("content")
        images = message.get("images")
        if isinstance(images, list) and images:
            # The chat decides what becomes of them; their bytes are of no use.
            parts = [{"type": "image_url", "image_url": {"url": "images"}} for _ in images]
            content = [{"type": "text", "text": content or ""}, *parts]
        chat: dict[str, Any] = {"role": role.lower() if isinstance(role, str) else role, "content": content}
        if chat["role"] == "assistant":
            chat |= {"reasoning_content": message.get("thinking"), "tool_calls": message.get("tool_calls")}
            calls = message.get("tool_calls")
            listed = calls if isinstance(calls, list) else []
            self._ids = {call["id"] for call in listed if isinstance(call, dict) and isinstance(call.get("id"), str)}
        elif chat["role"] == "tool":
            # Most clients give no ids back: then the name of the function tells which call it was, or the order.
            chat["name"] = message.get("tool_name") or message.get("name")
            if message.get("tool_call_id") in self._ids:
                chat["tool_call_id"] = message["tool_call_id"]
        self.append(chat, path, tool_calls=f"{path}.tool_calls", name=f"{path}.tool_name")
        if isinstance(content, list):
            self.paths |= {f"{self.here}.content[{at}]": f"{path}.images[{at - 1}]" for at in range(1, len(content))}
