"""Templates that come with files, and what is done so that their faults do not show."""

from __future__ import annotations

from pathlib import Path

import pytest
from talks import BOS, CLOCK, RESULT, SYSTEM, THOUGHT, USER, calling

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.compose import PromptInput, PromptOptions, RawTurnCache
from hermes_cli.prompting.families import THINKING_PROMPT
from hermes_cli.prompting.markers import plain
from hermes_cli.prompting.messages import Message, ToolCall
from hermes_cli.prompting.normalize import messages, tools
from hermes_cli.prompting.render import FileFormat
from hermes_cli.prompting.template import Abilities, ChatTemplate, examine

HERE = Path(__file__).parent
DEMO_TEMPLATE = HERE.parent.parent / "demo" / "template.jinja"


def published(name: str) -> ChatTemplate:
    return ChatTemplate((HERE / "published" / f"{name}.jinja").read_text(encoding="utf-8"))


@pytest.fixture
def demo() -> FileFormat:
    return FileFormat(ChatTemplate(DEMO_TEMPLATE.read_text(encoding="utf-8")))


@pytest.fixture
def hermes_4_file() -> FileFormat:
    source = (HERE / "hermes_4_as_known.jinja").read_text(encoding="utf-8")
    return FileFormat(ChatTemplate(source, bos=BOS), prompted_reasoning=True)


def test_the_demo_s_own(demo: FileFormat, demo_model: LlamaModel) -> None:
    assert demo_model.chat_template() == demo.template.source
    assert demo.plain == Abilities(
        system=True, tools="bare", calls="objects", text_beside_calls=True, thinking="always"
    )
    assert plain(demo.render(PromptInput([Message("user", "Hi")])).text) == (
        "<|im_start|>system\nYou are Hermes Demo.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    thinking = demo.render(PromptInput(messages([SYSTEM, USER]), options=PromptOptions(think=True)))
    assert thinking.text.startswith(f"<|im_start|>system\n{THINKING_PROMPT}\n\nS<|im_end|>")
    assert thinking.thinks
    assert "Hm." not in demo.render(PromptInput(messages([USER, THOUGHT, USER]))).text
    assert (
        "Hm."
        in demo.render(PromptInput(messages([USER, THOUGHT, USER]), options=PromptOptions(keep_reasoning=True))).text
    )
    head, _, rest = demo.render(
        PromptInput(messages([SYSTEM, USER, calling("I look."), RESULT]), tools([CLOCK]))
    ).text.partition("<|im_end|>\n")
    assert '<tools>\n{"type": "function", "function": {"name": "clock"}}\n</tools>' in head
    assert rest == (
        '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nI look.\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
        "<|im_end|>\n<|im_start|>tool\n<tool_response>\n12:00\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_hermes_4_from_a_file(hermes_4_file: FileFormat) -> None:
    """Its faults do not show: see also test_parity.py."""
    can = hermes_4_file.plain
    assert (can.thinking, can.needs_thought, can.tools, can.text_beside_calls) == ("alone", True, "bare", True)
    with_system = hermes_4_file.render(PromptInput(messages([SYSTEM, USER]), options=PromptOptions(think=True)))
    assert f"\n\n{THINKING_PROMPT}\n\nS<|eot_id|>" in with_system.text
    assert (
        hermes_4_file.render(PromptInput(messages([USER]), options=PromptOptions(think=True))).text.count(
            THINKING_PROMPT
        )
        == 1
    )
    with pytest.raises(HermesError, match="no element 1"):
        hermes_4_file.template.write([USER, {"role": "assistant", "content": "A"}, USER], (), thinking=True)
    memory = RawTurnCache()
    written = "<think>\nHm.\n</think>\n\n\n<tool_call>{}</tool_call>"
    memory.remember(Message("assistant", None, (ToolCall("clock", {}, "c1"),), "Hm."), written)
    request = PromptInput(messages([USER, calling(), RESULT]), tools([CLOCK]), PromptOptions(think=True), memory)
    assert "<think> </think>\n\n\n<tool_call>{}</tool_call><|eot_id|>" in hermes_4_file.render(request).text


def test_the_published_tool_use_from_a_file() -> None:
    """It comes as a second template; what it drops is put where it does not drop it."""
    source = published("hermes-2-pro-and-3.tool_use").source
    carried = FileFormat(published("chatml"), ChatTemplate(source, bos=BOS))
    assert carried.with_tools == Abilities(system=True, tools="any", calls="objects")
    prompt = carried.render(PromptInput(messages([SYSTEM, USER, calling("I look."), RESULT]), tools([CLOCK]))).text
    assert "<|im_start|>assistant\nI look.\n<tool_call>\n" in prompt
    assert '"description": "clock() - ' in prompt
    assert "<tools>" not in carried.render(PromptInput(messages([USER]))).text


def test_arguments_as_text_where_a_template_wants_text() -> None:
    source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ '[' + c.function.arguments + ']' + c.function.name }}{% endfor %}{% endfor %}"
    assert examine(ChatTemplate(source)).calls == "text"
    request = PromptInput(messages([USER, calling(a=1), RESULT]))
    assert FileFormat(ChatTemplate(source)).render(request).text == 'Hi[{"a": 1}]clock12:00'


def test_reasoning_for_templates_that_read_it() -> None:
    source = "{% for m in messages %}{{ m.role + ':' + m.content }}{{ '(' + m.reasoning_content + ')' if m.reasoning_content }}{{ m.tool_calls | tojson if m.tool_calls }}|{% endfor %}"
    assert (
        FileFormat(ChatTemplate(source)).render(PromptInput(messages([USER, THOUGHT, USER]))).text
        == "user:Hi|assistant:A(Hm.)|user:Hi|"
    )


def test_other_models_switches() -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}"
    other = FileFormat(ChatTemplate(source))
    assert other.plain.thinking == "always"
    assert other.render(PromptInput(messages([USER]))).inside_reasoning
    assert other.render(PromptInput(messages([USER]))).opening == "<think>"
    assert not other.render(PromptInput(messages([USER]), options=PromptOptions(think=False))).inside_reasoning


def test_a_thought_that_the_prompt_opened_is_cut_like_any_other() -> None:
    source = "{% for m in messages %}{{ m.role + ':' + m.content + '|' }}{% endfor %}{{ '<think>\n' }}"
    always = FileFormat(ChatTemplate(source))
    call = ToolCall("clock", {}, "c1")
    memory = RawTurnCache()
    opening = always.render(PromptInput(messages([USER]))).opening
    assert opening == "<think>\n"
    memory.remember(Message("assistant", None, (call,), "Hm."), opening + "Hm.\n</think>\n\n<tool_call>{}</tool_call>")
    request = PromptInput(messages([USER, calling(), RESULT]), raw_turns=memory)
    assert "assistant:<tool_call>{}</tool_call>|" in always.render(request).text


def test_what_a_file_s_template_cannot_do_is_told() -> None:
    bare = FileFormat(ChatTemplate("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"))
    with pytest.raises(UsageError, match="takes no tools"):
        bare.render(PromptInput(messages([USER]), tools([CLOCK])))
    with pytest.raises(UsageError, match="takes no system prompt"):
        bare.render(PromptInput(messages([SYSTEM, USER])))
    with pytest.raises(UsageError, match="has no reasoning mode"):
        bare.render(PromptInput(messages([USER]), options=PromptOptions(think=True)))
    assert bare.render(PromptInput(messages([USER]), options=PromptOptions(think=False))).text == "Hi"
    always = FileFormat(ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"))
    with pytest.raises(UsageError, match="no switch for reasoning"):
        always.render(PromptInput(messages([USER]), options=PromptOptions(think=False)))
    picky = FileFormat(
        ChatTemplate("{{ raise_exception('roles must alternate') if messages | length > 1 else messages[0].content }}")
    )
    with pytest.raises(HermesError, match="roles must alternate"):
        picky.render(PromptInput(messages([USER, USER])))


def test_a_tool_that_a_template_cannot_write_is_given_to_it_plainly() -> None:
    """Hermes 2 Pro's goes through the letters of "null" for ever, and wants properties."""
    hermes_2 = FileFormat(published("hermes-2-pro-and-3.tool_use"))
    nullable = {
        "type": "object",
        "properties": {"a": {"type": ["null", "integer"], "description": "Age"}},
        "required": ["a"],
    }
    for parameters in (nullable, {"properties": None}, {"properties": [3], "required": 3}):
        odd = {"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}
        text = plain(hermes_2.render(PromptInput([Message("user", "Hi")], [CLOCK, odd])).text)
        assert "clock" in text
        assert '"name": "f"' in text
        assert ("a(int): Age" in text) == (parameters is nullable)
