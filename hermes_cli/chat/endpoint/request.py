"""A conversation as a request to an OpenAI-compatible server, in the words of its kind. Unsaid things are not sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from hermes_cli.errors import UsageError
from hermes_cli.prompting.prompt_texts import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hermes_cli.chat.endpoint.probe import EndpointModel, Kind
    from hermes_cli.chat.options import ChatOptions
    from hermes_cli.prompting.messages import Message

# Names of sampling fields where servers have others: llama.cpp's (tools/server/README.md), vLLM's and OpenRouter's.
_LLAMA_CPP = {"penalty_last_n": "repeat_last_n", "dry_breakers": "dry_sequence_breakers"}
_OTHERS = {"repeat_penalty": "repetition_penalty"}


def body(
    served: EndpointModel, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
) -> dict[str, Any]:
    """The body of a request for the next turn, streamed.

    Raises:
        UsageError: the manner asks for what such a server cannot do.
    """
    if manner.shift:
        raise UsageError(
            "--context-shift is for models that run in this program.", hint="leave it out, or use /compact."
        )
    asked: dict[str, Any] = {
        "model": served.name,
        "messages": list(_messages(messages, manner.system)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if tools:
        asked["tools"] = list(tools)
    if manner.schema is not None and manner.schema is not False:
        asked["response_format"] = _format(manner.schema)
    if manner.max_tokens is not None:
        asked["max_completion_tokens" if served.kind == "openai" else "max_tokens"] = manner.max_tokens
    if manner.stops:
        asked["stop"] = list(manner.stops)
    return asked | _sampling(served.kind, manner.sampling) | thinking(served.kind, manner)


def prompt(
    served: EndpointModel, messages: Sequence[Message], tools: Sequence[dict[str, Any]], manner: ChatOptions
) -> dict[str, Any]:
    """What of it makes the prompt, as llama.cpp's `/apply-template` and vLLM's `/tokenize` read it."""
    whole = {"model": served.name, "messages": list(_messages(messages, manner.system)), "tools": list(tools) or None}
    whole |= {key: value for key, value in thinking(served.kind, manner).items() if key == "chat_template_kwargs"}
    return {key: value for key, value in whole.items() if value is not None}


def thinking(kind: Kind, manner: ChatOptions) -> dict[str, Any]:
    """Whether to reason, and how long.

    llama.cpp, vLLM and this program's server hand `chat_template_kwargs` to the template (`thinking` is what Hermes 4's
    reads, `enable_thinking` most others). Ollama takes OpenAI's levels, OpenRouter has an object of its own.

    Raises:
        UsageError: the budget cannot be told to such a server.
    """
    think, budget = manner.think, None if manner.think is False else manner.think_budget
    if kind == "openrouter":
        said = {"enabled": think, "max_tokens": budget}
        said = {key: value for key, value in said.items() if value is not None}
        return {"reasoning": said} if said else {}
    if kind in {"openai", "ollama"}:
        if budget is not None:
            raise UsageError(
                "--think-budget: this server has no limit in tokens for its reasoning.",
                hint="leave it out; --max-tokens limits reasoning and answer together.",
            )
        return {} if think is None else {"reasoning_effort": "medium" if think else "none"}
    told: dict[str, Any] = (
        {} if think is None else {"chat_template_kwargs": {"thinking": think, "enable_thinking": think}}
    )
    if budget is not None:
        told["thinking_token_budget" if kind == "vllm" else "thinking_budget_tokens"] = budget
    return told


def _messages(messages: Sequence[Message], system: str | None) -> Iterator[dict[str, Any]]:
    if system:
        yield {"role": "system", "content": system}
    for message in messages:
        yield _message(message)


def _message(message: Message) -> dict[str, Any]:
    """One message. What the model thought is not told again: no model was trained to read it."""
    plain: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.tool_calls:
        plain["content"] = message.content
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": canonical(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        plain["tool_call_id"] = message.tool_call_id or ""
        plain |= {"name": message.name} if message.name else {}
    return plain


def _format(schema: Mapping[str, Any] | Literal[True]) -> dict[str, Any]:
    if schema is True:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _sampling(kind: Kind, given: Mapping[str, float | int]) -> dict[str, Any]:
    names = _OTHERS if kind in {"vllm", "openrouter"} else _LLAMA_CPP
    return {names.get(name, name): value for name, value in given.items()}
