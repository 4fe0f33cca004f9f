"""Streams of events that have names, as in OpenAI's Responses and Anthropic's Messages, and what is said of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from hermes_cli.server.openai.replies import answers, json_text, stream_event
from hermes_cli.server.openai.sse import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping


_TEXT = {"type": "string"}


def encoded(value: object) -> bytes:
    """As JSON on one line; what clients sent of half characters is given back as they spelled it."""
    try:
        return one_line(msgspec.json.encode(value))
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def event(kind: str, fields: Mapping[str, object]) -> bytes:
    """One event; its name stands in it, too."""
    return b"event: " + kind.encode() + b"\ndata: " + encoded({"type": kind, **fields}) + b"\n\n"


def described(whole: type[msgspec.Struct], stream: str = "") -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a route's answer.

    Args:
        whole: what it is in one piece.
        stream: says how it is streamed; empty if it never is.
    """
    said = answers(whole)
    content = said[200]["content"]
    _without_discriminators(content)
    if stream:
        data = json_text({"type": "object", "properties": {"type": _TEXT}, "required": ["type"]})
        content["text/event-stream"] = {"itemSchema": {**stream_event(data, event=_TEXT), "description": stream}}
    return said


def _without_discriminators(part: Any) -> None:  # noqa: ANN401 - any part of a schema
    """They name definitions that are not there: schemas are in one piece."""
    if isinstance(part, dict):
        part.pop("discriminator", None)
        for one in part.values():
            _without_discriminators(one)
    elif isinstance(part, list):
        for one in part:
            _without_discriminators(one)
