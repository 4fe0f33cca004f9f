"""Parts of messages as text. What models cannot read becomes a line in its place: `[image, image/png, 193 bytes]`.

Clients send the whole conversation with each request: a part that is refused would end it for good.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from hermes_cli.prompting.families import canonical

TEXT_FIELDS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text"})
SENSES = ("image", "audio", "video")  # what only another model could look at or listen to
LONGEST_LINK = 200  # characters of an address that are shown

_MEDIA_TYPES = ("media_type", "mime_type", "mimeType", "format")
_NAMES = ("title", "name", "filename", "tool_name", "tool_use_id", "file_id", "error_code")
_DATA = ("data", "file_data", "blob", "url", "uri", "image_url", "file_url", "audio_url", "video_url", "source")
_INNER = ("source", "file", "resource", "input_audio", "image_url", "audio_url", "video_url")  # parts of parts
_CONTENT = ("content", "text", "thinking", "reasoning", "summary", "stdout", "stderr", "output")
_ARGUMENTS = ("input", "arguments", "action", "queries")
_DATA_URL = re.compile(r"data:([^;,]*)[^,]{0,100},")


def kind_of(part: object) -> str:
    """Return the type of a part; empty if it has none."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str):
        return kind
    return "text" if isinstance(part, dict) and kind is None and isinstance(part.get("text"), str) else ""


def sense_of(part: Mapping[str, Any]) -> str:
    """Return `image`, `audio` or `video` for a part that is one, else an empty text."""
    kind = kind_of(part)
    media_type = _first(_flat(part), _MEDIA_TYPES).partition("/")[0]
    if "screenshot" in kind:
        return "image"
    return next((sense for sense in SENSES if sense in (*kind.split("_"), media_type)), "")


def part_text(part: Any) -> str:  # noqa: ANN401 - anything of JSON
    """Return a part as text: its own, else a line that says what it is, and below it all text that it has inside."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "\n".join(filter(None, map(part_text, part)))
    if not isinstance(part, dict):
        return "" if part is None else canonical(part)
    kind, fields = kind_of(part), _flat(part)
    text = part.get(TEXT_FIELDS.get(kind, ""))
    if isinstance(text, str):
        return text
    inside = [
        text
        for name in _CONTENT
        if isinstance(fields.get(name), str | list | dict) and (text := part_text(fields[name]))
    ]
    if kind in THOUGHTS:
        return "\n".join(inside)
    details, file = _details(kind, fields)
    return "\n".join([f"[{', '.join(details)}]", *inside, *file])


def _details(kind: str, fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what is to be said of a part, and the text of its file if that is text."""
    details, file = [kind.removeprefix("input_").removesuffix("_url") or "part"], []
    details += [str(fields[name]) for name in _NAMES if isinstance(fields.get(name), str | int) and fields[name] != ""]
    media_type, data = _first(fields, _MEDIA_TYPES), _first(fields, _DATA)
    if url := _DATA_URL.match(data[:200]):
        media_type, data = url[1] or media_type, data[url.end() :]
    details += [media_type] if media_type else []
    text = data if fields.get("type") == "text" else _decoded(media_type, data)
    if data.startswith(("http:", "https:", "file:")):
        details.append(data if len(data) <= LONGEST_LINK else f"{data[:LONGEST_LINK]}…")
    elif text:
        file.append(text)
    elif data:
        details.append(f"{len(data) * 3 // 4 - data.count('=', -2):,} bytes")
    # Of a tool that another server ran:
    details += [canonical(fields[name]) for name in _ARGUMENTS if fields.get(name) is not None]
    return details, file


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a part together with those of the objects in it."""
    fields = dict(part)
    for name in _INNER:
        if isinstance(part.get(name), dict):
            fields |= part[name]
            del fields[name]
    return fields


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((value for name in names if isinstance(value := fields.get(name), str)), "")


def _decoded(media_type: str, data: str) -> str | None:
    """Return the text of a file that is text, None for any other."""
    if not media_type.startswith("text/") and media_type != "application/json":
        return None
    try:
        return base64.b64decode(data, validate=True).decode()
    except (ValueError, binascii.Error):
        return None
