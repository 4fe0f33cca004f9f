"""How many rows of a table of model outputs the parser gets right, per group, next to the peers measured in it.

    python tools/parser_table.py toolcall-cases.jsonl

A row counts if calls, content and reasoning are as expected: whole, by character, and in the row's own pieces. For
peers the first number is the same (in one piece, or streamed where the column says so); in brackets stands how many
rows have the right calls, whatever became of the text.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli.prompting.messages import CallArguments, CallStarted, Content, Reasoning
from hermes_cli.prompting.parse import Parser

if TYPE_CHECKING:
    from collections.abc import Iterable

Row = dict[str, Any]
PEERS = {
    "vllm": "vLLM",
    "vllm_stream": "vLLM, streamed",
    "sglang": "SGLang",
    "sglang_stream": "SGLang, streamed",
    "llamacpp": "llama.cpp",
    "ollama": "Ollama",
}
THOUGHT = re.compile(r"</?(?:think|scratch_pad)>")


def group(row: Row) -> str:
    """What a row is about, as far as can be told from its output and what is expected of it."""
    output, calls = row["model_output"], len(row["expected"]["tool_calls"])
    if THOUGHT.search(output):
        return "reasoning"
    if "<tool_call>" not in output:
        return "text and other formats"
    if calls > 1:
        return "several calls"
    if not calls:
        return "blocks that are no calls"
    return "one call" if in_wire_form(output) else "one call, with slips"


def in_wire_form(output: str) -> bool:
    """Whether the block is JSON with a name and arguments."""
    block = re.search(r"<tool_call>(.*)</tool_call>", output, re.DOTALL)
    try:
        value = json.loads(block[1]) if block else None
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("arguments"), dict)


def parsed(row: Row, pieces: Iterable[str]) -> Row:
    """What the parser makes of a row, in the table's terms."""
    parser = Parser(tools=row["tools"], prompt_opens_think=row.get("prompt_opens_think", False))
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    names = {event.index: event.name for event in events if isinstance(event, CallStarted)}
    arguments: defaultdict[int, str] = defaultdict(str)
    for event in events:
        if isinstance(event, CallArguments):
            arguments[event.index] += event.text
    return {
        "content": "".join(event.text for event in events if isinstance(event, Content)) or None,
        "reasoning_content": "".join(event.text for event in events if isinstance(event, Reasoning)) or None,
        "tool_calls": [{"name": name, "arguments": json.loads(arguments[at])} for at, name in names.items()],
    }


def is_right(row: Row) -> bool:
    """Whether every way of cutting the output gives what is expected."""
    output = row["model_output"]
    ways = ([output], output, row.get("chunks", [output]))
    return all(parsed(row, pieces) == row["expected"] for pieces in ways)


def table(rows: list[Row]) -> Iterable[str]:
    """The lines of a Markdown table."""
    groups = {name: [row for row in rows if group(row) == name] for name in sorted(set(map(group, rows)))}
    yield "| rows about | rows | hermes | " + " | ".join(PEERS.values()) + " |"
    yield "|---|---|---|" + "---|" * len(PEERS)
    for name, members in [*groups.items(), ("all", rows)]:
        cells = [name, str(len(members)), str(sum(map(is_right, members)))]
        for peer in PEERS:
            said = Counter(row["measured"][peer] for row in members)
            cells.append(f"{said['ok']} ({said['ok'] + said['calls-ok']})")
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table and the rows that are not as expected."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    lines = arguments.parse_args().table.read_text(encoding="utf-8").strip().split("\n")
    rows = [json.loads(line) for line in lines]
    print("\n".join(table(rows)))
    for row in rows:
        if not is_right(row):
            print(f"not as expected: {row['id']}")


if __name__ == "__main__":
    main()
