"""A day of Codex and one of Claude Code: whole sessions as these clients send them, the model's words from a script.

Shapes of requests are those of Codex 0.171.0 and Claude Code 2.1.197; their prompts and tools are shortened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from fake_engine import LOADED, FakeEngine
from openai_rig import HERMES_4, House
from server_rig import offer, served

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAE="
DOCUMENT = "JVBERi0xLjcK"


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    engine = FakeEngine(loaded=replace(LOADED, context=100_000))
    with served(offers=[offer("hermes", "*", known=HERMES_4)], engine=lambda _: engine) as running:
        yield House(running, engine)


def call(name: str, **arguments: object) -> str:
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"


def prompts(rig: House) -> list[str]:
    return ["".join(map(str, request.prompt)) for request in rig.engine.requests]


def assert_each_goes_on_from_the_one_before(rig: House, script: Sequence[str]) -> None:
    """Nothing that was read or written is read in other words later: the KV cache of the session is never lost."""
    read = prompts(rig)
    assert len(read) == len(script)
    for before, said, after in zip(read, script, read[1:], strict=False):
        assert after.startswith(before + re.sub("^<think>.*</think>\n*", "", said, flags=re.DOTALL))


def events(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(part.partition("data: ")[2]) for part in body.decode().strip().split("\n\n")]


class Codex:
    """Sends all items with each request, and stores nothing at the server."""

    TOOLS: tuple[dict[str, Any], ...] = (
        {
            "type": "function",
            "name": "exec_command",
            "strict": False,
            "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
        },
        {
            "type": "function",
            "name": "view_image",
            "strict": False,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch"'},
        },
        {
            "type": "namespace",
            "name": "multi_agent_v1",
            "description": "Other agents.",
            "tools": [{"type": "function", "name": "spawn_agent", "strict": False, "parameters": {"type": "object", "properties": {}}}],
        },
        {"type": "web_search", "external_web_access": True},
    )  # fmt: skip

    def __init__(self, rig: House) -> None:
        self.rig = rig
        developer = [{"type": "input_text", "text": "<permissions>all</permissions>"}]
        self.items: list[dict[str, Any]] = [{"type": "message", "role": "developer", "content": developer}]

    def ask(self, text: str, results: dict[str, Any]) -> str:
        """Run a turn to its end; `results` are those of tools by name."""
        self.items.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
        while True:
            output = self._request()
            for item in output:
                item.pop("id")
                self.items.append(item)
                if "call_id" in item:
                    result = {"call_id": item["call_id"], "output": results[item["name"]]}
                    self.items.append({"type": f"{item['type']}_output", **result})
            if not any("call_id" in item for item in output):
                return str(output[-1]["content"][0]["text"])

    def _request(self) -> list[dict[str, Any]]:
        body = {
            "model": "gpt-5.1-codex",
            "instructions": "You are Codex.",
            "input": self.items,
            "tools": self.TOOLS,
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "reasoning": {"effort": "none", "summary": "auto"},
            "store": False,
            "stream": True,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "session",
            "text": {"verbosity": "medium"},
        }
        answer = self.rig.post("/v1/responses", body)
        assert answer.status == 200, answer.body
        last = events(answer.body)[-1]
        assert last["type"] == "response.completed"
        output: list[dict[str, Any]] = last["response"]["output"]
        return output


def test_a_day_of_codex(rig: House) -> None:
    script = [
        "<think>\nI ask the shell.\n</think>\n" + call("exec_command", cmd="echo $((6*7))"),
        "It is 42.",
        call("view_image", path="a.png"),
        "I cannot see it.",
        call("apply_patch", input='*** Begin Patch\n*** Add File: a "b"\n'),
        call("spawn_agent"),
        "All is done.",
    ]
    rig.says(*([text] for text in script))
    codex = Codex(rig)
    results = {
        "exec_command": "Exit code: 0\nOutput:\n42\n",
        "view_image": [{"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"}],
        "apply_patch": "Success.",
        "spawn_agent": [{"type": "input_text", "text": "agent 1"}, {"type": "odd", "what": 1}],
    }
    assert codex.ask("What is 6 times 7? Ask the shell.", results) == "It is 42."
    assert codex.ask("Look at a.png.", results) == "I cannot see it."
    codex.items.append({"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}})
    codex.items.append({"type": "ghost_snapshot", "ghost_commit": {"id": "x"}})
    assert codex.ask("Now change it.", results) == "All is done."
    last = prompts(rig)[-1]
    assert "<tool_response>\n[image, image/png, 20 bytes]\n</tool_response>" in last
    assert "<tool_response>\nagent 1\n[odd]\n</tool_response>" in last
    assert [item["type"] for item in codex.items if "input" in item or "namespace" in item] == [
        "custom_tool_call",
        "function_call",
    ]
    assert_each_goes_on_from_the_one_before(rig, script)


class ClaudeCode:
    """Sends all messages with each request; a place in an error's words makes it leave a picture out and ask again."""

    TOOLS: tuple[dict[str, Any], ...] = tuple(
        {"name": name, "description": name, "input_schema": {"type": "object", "properties": {key: {"type": "string"}}}}
        for name, key in (("Bash", "command"), ("Read", "file_path"), ("ToolSearch", "query"))
    )

    def __init__(self, rig: House) -> None:
        self.rig = rig
        self.requests = 0
        self.messages: list[dict[str, Any]] = []

    def ask(self, content: list[dict[str, Any]], results: dict[str, Any]) -> str:
        """Run a turn to its end; `results` are those of tools by name, with what stands beside them."""
        self.messages.append({"role": "user", "content": content})
        while True:
            blocks = self._request()
            self.messages.append({"role": "assistant", "content": blocks})
            calls = [block for block in blocks if block["type"] == "tool_use"]
            if not calls:
                return str(blocks[-1]["text"])
            back: list[dict[str, Any]] = []
            for block in calls:
                result, *beside = results[block["name"]]
                back += [{"type": "tool_result", "tool_use_id": block["id"], "content": result}, *beside]
            self.messages.append({"role": "user", "content": back})

    def _request(self) -> list[dict[str, Any]]:
        self.requests += 1
        bill = f"x-anthropic-billing-header: cc_version=2.1.197; cch={self.requests:05x};"
        system = [bill, "You are Claude Code.", f"{bill}\nBe short."]
        body = {
            "model": "claude-opus-4-8",
            "max_tokens": 32_000,
            "system": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in system],
            "messages": self.messages,
            "tools": self.TOOLS,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "high"},
            "metadata": {"user_id": "x"},
            "context_management": {"edits": []},
            "stream": True,
        }
        answer = self.rig.post("/v1/messages", body)
        place = re.search(rb"messages\.(\d+)\.content\.(\d+)\.image", answer.body) if answer.status == 400 else None
        if place:
            self.messages[int(place[1])]["content"][int(place[2])] = {"type": "text", "text": "[image removed]"}
            return self._request()
        assert answer.status == 200, answer.body
        return self._blocks(events(answer.body))

    @staticmethod
    def _blocks(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert told[-1]["type"] == "message_stop"
        blocks: list[dict[str, Any]] = [
            event["content_block"] for event in told if event["type"] == "content_block_start"
        ]
        for event in told:
            if event["type"] == "content_block_delta":
                block, (kind, piece) = blocks[event["index"]], list(event["delta"].items())[-1]
                if kind == "partial_json":
                    block["json"] = block.get("json", "") + piece
                else:
                    block[kind] += piece
        for block in blocks:
            if block["type"] == "tool_use":
                block["input"] = json.loads(block.pop("json", "{}"))
        return blocks


def test_a_day_of_claude_code(rig: House) -> None:
    script = [
        "Let me ask.\n" + call("Bash", command="echo $((6*7))"),
        "It is 42.",
        call("Read", file_path="a.png") + "\n" + call("Read", file_path="a.pdf"),
        "I cannot see it.",
        call("ToolSearch", query="clock"),
        "There is a clock.",
        "No picture is there.",
        "Goodbye.",
    ]
    rig.says(*([text] for text in script))
    claude = ClaudeCode(rig)
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    paper = {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT}
    results = {
        "Bash": ("42",),
        "Read": ([{"type": "image", "source": source}], {"type": "document", "source": paper}),
        "ToolSearch": ([{"type": "tool_reference", "tool_name": "clock"}, {"type": "odd", "content": "things"}],),
    }
    text = {"type": "text", "text": "<system-reminder>Be kind.</system-reminder>"}
    assert claude.ask([text, {"type": "text", "text": "What is 6 times 7?"}], results) == "It is 42."
    assert claude.ask([{"type": "text", "text": "Read both."}], results) == "I cannot see it."
    claude.messages.append({"role": "system", "content": "<total_tokens>5 left</total_tokens>"})
    assert claude.ask([{"type": "text", "text": "Find a clock."}], results) == "There is a clock."
    assert (
        claude.ask([{"type": "text", "text": "And this?"}, {"type": "image", "source": source}], results) == script[6]
    )
    assert claude.ask([{"type": "text", "text": "Bye."}], results) == "Goodbye."
    last = prompts(rig)[-1]
    picture, document = "[image, image/png, 20 bytes]", "[document, application/pdf, 9 bytes]"
    assert last.count(f"<tool_response>\n{picture}\n</tool_response>") == 2
    assert last.count(document) == 2
    assert "<tool_response>\n[tool_reference, clock]\n[odd]\nthings\n</tool_response>" in last
    assert "<total_tokens>5 left</total_tokens>\n\nFind a clock." in last
    assert "And this?\n[image removed]" in last
    assert "billing" not in last
    assert claude.requests == len(script) + 1  # the one with the picture twice
    assert_each_goes_on_from_the_one_before(rig, script)
