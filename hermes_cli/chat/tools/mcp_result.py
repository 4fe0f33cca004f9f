"""What an MCP tool returned, as the text that the model reads: what is no text is named, not shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import mcp_types

if TYPE_CHECKING:
    from mcp_types import CallToolResult, ContentBlock


def as_text(result: CallToolResult) -> str:
    """Its texts, with a line for everything else in it; structured content as JSON where there is no text."""
    silent = not any(isinstance(block, mcp_types.TextContent) for block in result.content)
    if silent and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(map(_block, result.content))


def _block(block: ContentBlock) -> str:
    if isinstance(block, mcp_types.TextContent):
        return block.text
    if isinstance(block, mcp_types.ImageContent | mcp_types.AudioContent):
        return f"[{block.type}, {block.mime_type}, {_bytes(block.data)}]"
    if isinstance(block, mcp_types.ResourceLink):
        return f"[link to {block.uri}: {block.title or block.name}]"
    resource = block.resource
    if isinstance(resource, mcp_types.TextResourceContents):
        return f"[{resource.uri}]\n{resource.text}"
    return f"[{resource.uri}, {resource.mime_type or 'of unknown type'}, {_bytes(resource.blob)}]"


def _bytes(base64: str) -> str:
    return f"{len(base64) * 3 // 4 - base64.count('=', -2):,} bytes"
