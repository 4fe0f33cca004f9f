"""Anthropic's requests as chats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.normalize import check
from hermes_cli.server.anthropic.conversation import Conversation
from hermes_cli.server.anthropic.schemas import REFUSED, SAME, CountRequest
from hermes_cli.server.openai.as_chat import Names, Ordered, ordered
from hermes_cli.server.openai.schemas import ChatRequest
from hermes_cli.server.openai.thinking import BUDGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_JSON = ("messages", "system", "tools", "tool_choice", "output_config", "output_format", "chat_template_kwargs")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_FORMAT = 'write it like this: {"type": "json_schema", "schema": {…}}.'


async def message_order(body: CountRequest, client: str) -> Ordered:
    """What a request asks for.

    Args:
        body: the request; without `max_tokens` where it is only to be counted.
        client: who asks.

    Raises:
        UsageError: a field makes no sense, or cannot be honoured.
    """
    for name, (usual, hint) in REFUSED.items():
        if (body.model_extra or {}).get(name) not in (None, usual):
            raise UsageError("is not supported.", field=name, hint=hint)
    for name in _JSON:
        check(getattr(body, name), name)
    conversation = Conversation(body.system, body.messages)
    tools, parameters = _tools(body.tools or [])
    where, form = _format(body)
    others = {
        "stop": "stop_sequences",
        "response_format": where,
        "thinking_budget_tokens": "output_config.effort",
    }
    names = Names({**conversation.places, **parameters, **others}, "Anthropic's Messages")
    choice = body.tool_choice or {}
    chat = ChatRequest.model_construct(
        **{name: value for name in SAME if (value := getattr(body, name, None)) is not None},
        messages=conversation.messages,
        tools=tools,
        tool_choice=_choice(choice),
        parallel_tool_calls=choice.get("disable_parallel_tool_use") is not True,
        stop=getattr(body, "stop_sequences", None),
        thinking=body.thinking,
        include_reasoning=(body.thinking or {}).get("display") != "omitted",
        thinking_budget_tokens=_effort(body.output_config or {}),
        response_format=form,
    )
    return await ordered(chat, client, names)


def _tools(given: Sequence[object]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Tools as chats have them, and what their parameters are called here."""
    tools = [_tool(one, f"tools[{index}]") for index, one in enumerate(given)]
    return tools, {f"tools[{index}].parameters": f"tools[{index}].input_schema" for index in range(len(tools))}


def _tool(given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UsageError("must be an object.", field=where, hint="give it a name and an input_schema.")
    if given.get("type") not in (None, "custom"):
        raise UsageError(
            f"is {str(given['type'])[:60]}, which is not supported.",
            field=f"{where}.type",
            hint="describe the tool by its input_schema.",
        )
    schema = given.get("input_schema")
    function = {"name": given.get("name"), "description": given.get("description"), "parameters": schema}
    return {"type": "function", "function": function}


def _choice(given: Mapping[str, Any]) -> object:
    kind = given.get("type", "auto")
    if kind == "tool":
        return {"type": "function", "function": {"name": given.get("name")}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise UsageError(f"is {str(kind)[:40]}.", field="tool_choice.type", hint="there are auto, any, tool and none.")
    return _CHOICES[kind]


def _format(body: CountRequest) -> tuple[str, dict[str, Any] | None]:
    """The field that holds the answer to a schema, and what it says."""
    config = body.output_config or {}
    for where, given in (("output_config.format", config.get("format")), ("output_format", body.output_format)):
        if given is not None:
            if not isinstance(given, dict) or given.get("type") != "json_schema":
                raise UsageError("must be of type json_schema.", field=where, hint=_FORMAT)
            return where, given
    return "output_config.format", None


def _effort(config: Mapping[str, Any]) -> int | None:
    """The most tokens of reasoning, if there is any."""
    effort = config.get("effort")
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in BUDGETS:
        raise UsageError(
            f"is {str(effort)[:40]!r}.", field="output_config.effort", hint=f"there are {', '.join(BUDGETS)}."
        )
    return BUDGETS[effort]
