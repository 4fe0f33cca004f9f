from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.messages import Message, ToolCall
from hermes_cli.prompting.render import ChatTemplate, built_in_template

DEMO_TEMPLATE = Path(__file__).parent.parent.parent / "demo" / "template.jinja"
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}


@pytest.fixture
def demo() -> ChatTemplate:
    return ChatTemplate(DEMO_TEMPLATE.read_text(encoding="utf-8"))


def test_demo_plain(demo: ChatTemplate) -> None:
    assert demo.render([Message("user", "Hi")]) == (
        "<|im_start|>system\nYou are Hermes Demo.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_demo_tools_calls_and_results(demo: ChatTemplate) -> None:
    calls = (ToolCall("f", {"x": "é"}), ToolCall("f", {}))
    messages = [
        Message("system", "S"),
        Message("user", "Hi"),
        Message("assistant", "I look.", calls),
        Message("tool", "1"),
        Message("tool", "2"),
    ]
    head, _, rest = demo.render(messages, [TOOL]).partition("<|im_end|>\n")
    assert head.startswith("<|im_start|>system\nS\n\n# Tools\n\n")
    assert (
        '<tools>\n{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}\n</tools>'
        in head
    )
    assert rest == (
        "<|im_start|>user\nHi<|im_end|>\n"
        '<|im_start|>assistant\nI look.\n<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_demo_drops_earlier_reasoning(demo: ChatTemplate) -> None:
    text = demo.render(
        [Message("user", "a"), Message("assistant", "<think>\nHm.\n</think>\n\nb"), Message("user", "c")]
    )
    assert "Hm" not in text
    assert "<|im_start|>assistant\nb<|im_end|>" in text


def test_built_in_chatml_and_alpaca() -> None:
    messages = [Message("system", "S"), Message("user", "U"), Message("assistant", "A"), Message("user", "V")]
    assert built_in_template("chatml").render(messages) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n"
    )
    assert built_in_template("alpaca").render(messages) == (
        "S\n\n### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nV\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    "payload",
    [
        # The published exploit of CVE-2024-34359 and its kin.
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
        "{{ self.__init__.__globals__.__builtins__.__import__('os').system('true') }}",
        "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
        "{{ messages.append(1) }}",
        "{{ ''|attr('__class__') }}{{ ''.__class__.__mro__ }}",
    ],
)
def test_templates_cannot_leave_the_sandbox(payload: str) -> None:
    with pytest.raises(HermesError) as caught:
        ChatTemplate(payload).render([Message("user", "Hi")])
    assert caught.value.hint


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(UsageError, match="broken in line 2"):
        ChatTemplate("{{ messages }}\n{% if %}")


def test_what_a_template_refuses_is_told() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(HermesError, match="roles must alternate"):
        template.render([Message("user", "Hi")])


def test_tools_are_never_ignored_in_silence() -> None:
    with pytest.raises(UsageError, match="takes no tools"):
        built_in_template("chatml").render([Message("user", "Hi")], [TOOL])


def test_special_tokens_and_the_clock_are_there() -> None:
    template = ChatTemplate("{{ bos_token }}{{ strftime_now('%Y')|length }}{{ messages|tojson }}", bos="<s>")
    assert template.render([Message("user", "é <b>")]) == '<s>4[{"role": "user", "content": "é <b>"}]'
