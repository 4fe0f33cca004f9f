"""What each family of models reads."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from talks import (
    BOS,
    CALLERS,
    CLOCK,
    FAMILIES,
    RESULT,
    SYSTEM,
    THINKERS,
    THOUGHT,
    USER,
    calling,
    properties,
    title,
    write,
)

from hermes_cli.errors import UsageError
from hermes_cli.prompting.compose import PromptInput, PromptOptions, RawTurnCache
from hermes_cli.prompting.families import DEEPHERMES_3, HERMES_3, HERMES_4, HERMES_4_QWEN, THINKING_PROMPT, Family
from hermes_cli.prompting.markers import SpecialTexts, plain
from hermes_cli.prompting.messages import Message, ToolCall
from hermes_cli.prompting.normalize import messages, tools
from hermes_cli.prompting.render import OurFormat, Prompt


def test_deephermes() -> None:
    assert write(DEEPHERMES_3, [SYSTEM, USER], think=True) == (
        f"{BOS}<|start_header_id|>system<|end_header_id|>\n\n{THINKING_PROMPT}\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert (
        write(DEEPHERMES_3, [USER])
        == f"{BOS}<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    with_tools = write(DEEPHERMES_3, [USER, calling(), RESULT], [CLOCK], think=True)
    assert "You are a function calling AI model. You are provided with function signatures" in with_tools
    assert f"<|eot_id|><|start_header_id|>system<|end_header_id|>\n\n{THINKING_PROMPT}<|eot_id|>" in with_tools
    assert (
        "<|start_header_id|>tool<|end_header_id|>\n\n<tool_response>\n12:00\n</tool_response>\n<|eot_id|>" in with_tools
    )


def test_hermes_4_in_both_markups() -> None:
    for family, start, end in (
        (HERMES_4, f"{BOS}<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        (HERMES_4_QWEN, "<|im_start|>system\n", "<|im_end|>\n"),
    ):
        assert write(family, [USER]).startswith(f"{start}You are Hermes, created by Nous Research.{end}")
        assert write(family, [USER], think=True).startswith(f"{start}{THINKING_PROMPT}{end}")
        assert write(family, [SYSTEM, USER], think=True).startswith(f"{start}{THINKING_PROMPT}\n\nS{end}")
        assert write(family, [SYSTEM, USER], think=False).startswith(f"{start}S{end}")
        prompt = write(family, [USER, calling(), {**RESULT, "content": "1"}], [CLOCK, properties()])
        assert (
            'XML tags:\n<tools>\n{"type": "function", "function": {"name": "clock"}}\n{"type": "function", "function": {"name": "f", '
            in prompt
        )
        assert f"<tool_response>\n1\n</tool_response>{end}" in prompt


@pytest.mark.parametrize("family", THINKERS, ids=title)
def test_the_words_for_thinking_stand_there_once(family: Family) -> None:
    said = [{"role": "system", "content": f"S\n\n{THINKING_PROMPT}"}, USER]
    request = PromptInput(messages(said))
    assert OurFormat(family).render(request).thinks  # the system message says so itself
    for think in (None, True):
        assert write(family, said, think=think).count(THINKING_PROMPT) == 1
    assert not OurFormat(family).render(PromptInput(messages([USER]))).thinks


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.reasoning is None], ids=title)
def test_a_model_without_reasoning_says_so(family: Family) -> None:
    with pytest.raises(UsageError, match="have no reasoning mode"):
        write(family, [USER], think=True)
    assert write(family, [USER], think=False) == write(family, [USER])


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.tools is None], ids=title)
def test_a_model_without_tools_says_so(family: Family) -> None:
    with pytest.raises(UsageError, match=f"{family.title} models take no tools"):
        write(family, [USER], [CLOCK])


@pytest.mark.parametrize("family", FAMILIES, ids=title)
def test_json_mode(family: Family) -> None:
    wording = "You are a helpful assistant that answers in JSON."
    schema = {"type": "object", "properties": {"é": {"type": "integer"}}}
    whole = (
        wording
        + " Here's the json schema you must adhere to:\n<schema>\n"
        + json.dumps(schema, ensure_ascii=False)
        + "\n</schema>"
    )
    assert whole in write(family, [USER], schema=schema)
    assert f"{whole}\n\nS" in write(family, [SYSTEM, USER], schema=schema)
    assert wording + "\n\nS" in write(family, [SYSTEM, USER], schema=True)
    assert "helpful assistant." not in write(family, [USER], schema=schema).replace("created by", "")
    if family.reasoning:
        assert f"{THINKING_PROMPT}\n\n{whole}\n\nS" in write(family, [SYSTEM, USER], schema=schema, think=True)


@pytest.mark.parametrize("family", FAMILIES, ids=title)
def test_earlier_reasoning_goes_or_stays(family: Family) -> None:
    assert "Hm." not in write(family, [USER, THOUGHT, USER])
    assert "<think>\nHm.\n</think>\nA" in write(family, [USER, THOUGHT, USER], keep_reasoning=True)
    if family.reasoning == "thinking":
        assert "<think> </think>\nA<|" in write(family, [USER, THOUGHT, USER], think=True)
        assert "<think> </think>\nA<|" in write(family, [USER, {"role": "assistant", "content": "A"}, USER], think=True)


@pytest.mark.parametrize("family", CALLERS, ids=title)
def test_the_model_reads_what_it_wrote(family: Family) -> None:
    written = 'I look.\n\n<tool_call>{"arguments": {"b":1.0, "a":"\\u00e9"}, "name": "clock"}</tool_call>'
    call = ToolCall("clock", {"b": 1.0, "a": "é"}, "c1")
    memory = RawTurnCache()
    memory.remember(Message("assistant", "I look.", (call,)), written)
    sent = calling("I look.", a="é", b=1)

    def prompt(answer: dict[str, Any]) -> str:
        request = PromptInput(messages([USER, answer, RESULT]), tools([CLOCK]), raw_turns=memory)
        return plain(OurFormat(family).render(request).text)

    assert written + "<|" in prompt(sent)
    assert written + "<|" in prompt({**sent, "content": None})
    assert '{"name": "clock", "arguments": {"a": "é", "b": 2}}' in prompt(calling("I look.", a="é", b=2))
    assert "I looked.\n<tool_call>" in prompt({**sent, "content": "I looked."})


@pytest.mark.parametrize("keep", [False, True])
def test_a_thought_that_was_remembered(*, keep: bool) -> None:
    call = ToolCall("clock", {}, "c1")
    for written, cut in (
        ("<think>\nHm.\n</think>\n\n<tool_call>{}</tool_call>", "<think> </think>\n\n<tool_call>{}</tool_call>"),
        # A turn that ended in its thought: what came of it is written anew.
        (
            "<think>\nHm.\n<tool_call>{}</tool_call>",
            '<think> </think>\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
        ),
    ):
        memory = RawTurnCache()
        memory.remember(Message("assistant", None, (call,), "Hm."), written)
        talk = messages([USER, calling(), RESULT])
        request = PromptInput(talk, tools([CLOCK]), PromptOptions(think=True, keep_reasoning=keep), memory)
        assert (written if keep else cut) + "<|im_end|>" in OurFormat(HERMES_4_QWEN).render(request).text
        assert "</think>\n\n<tool_call>" not in OurFormat(HERMES_3).render(PromptInput(talk, raw_turns=memory)).text


@pytest.mark.parametrize("family", FAMILIES, ids=title)
def test_stops(family: Family) -> None:
    wanted = {"alpaca": ("### Instruction:",), "chatml": ("<|im_end|>",), "llama-3": ("<|eot_id|>",)}[family.markup]
    assert OurFormat(family).render(PromptInput(messages([USER]))).stop == wanted


def test_ten_megabytes() -> None:
    said = [{"role": "user", "content": "é\n" * 5_000_000}]
    started = time.process_time()
    assert len(write(HERMES_4, said)) > 10_000_000
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    ("opened", "message", "end", "inside"),
    [
        ("", Message("assistant", "It is"), "It is", False),
        ("", Message("assistant", "It is", reasoning="Hm."), "<think>\nHm.\n</think>\nIt is", False),
        ("", Message("assistant", None, reasoning="Hm"), "<think>\nHm", True),
        ("", Message("assistant", "<think>Hm"), "<think>Hm", True),
        ("<think>\n", Message("assistant", "It is"), "<think>\n\n</think>\n\nIt is", False),
        ("<think>\n", Message("assistant", "It is", reasoning="Hm."), "<think>\nHm.\n</think>\nIt is", False),
        ("<think>\n", Message("assistant", None, reasoning="Hm"), "<think>\nHm", True),
        ("<think>\n", Message("assistant", "<think>\nHm"), "<think>\nHm", True),
    ],
)
def test_a_turn_that_is_begun_goes_on_in_the_thought_or_behind_it(
    opened: str,
    message: Message,
    end: str,
    inside: bool,  # noqa: FBT001
) -> None:
    prompt = Prompt(f"assistant:\n{opened}", True, ()).continued(message, SpecialTexts(["<|im_end|>"]))  # noqa: FBT003
    assert prompt.plain == f"assistant:\n{end}"
    assert prompt.opening == end
    assert prompt.inside_reasoning is inside
    assert prompt.begun_part == ("Hm" if inside else "It is")
