"""Templates from strangers: what they may not reach, how much they may do, and that honest ones come out unchanged."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import cache
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from memory_use import most_memory

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting import template as templates
from hermes_cli.prompting.markers import SpecialTexts, plain
from hermes_cli.prompting.template import LONGEST_TEMPLATE, ChatTemplate

MESSAGES = [{"role": "user", "content": "hello"}]

# Published ways out: of Flask's and Jinja's sandbox, CVE-2016-10745, CVE-2019-10906, CVE-2024-34359 (llama-cpp-python),
# CVE-2024-56201, CVE-2024-56326, CVE-2025-27516, and their kin.
EXPLOITS = [
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}{{ ''['__class__'].mro() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').system('true') }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('true').read() }}",
    "{{ namespace.__init__.__globals__.os.popen('true').read() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ lipsum.__globals__.os }}",
    "{{ raise_exception.__globals__.json }}",
    "{{ strftime_now.__code__.co_consts }}",
    "{{ dict.mro() }}",
    "{{ url_for.__globals__ }}",
    "{{ request.application.__globals__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ messages|attr('append')(1) }}",
    "{{ [1]|map('attr', '__class__')|list }}",
    "{{ [{}]|map(attribute='__class__.__mro__')|list }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(range) }}",
    "{{ '{0[0].__class__}'.format(messages) }}",
    "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "{{ ('{0.__cla' ~ 'ss__}').format(messages) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ ['{0.__class__}']|map('format', 1)|list }}",
    "{{ '%(a.__class__)s'|format(a=1) }}",
    "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ (messages|map('upper')).gi_frame.f_back.f_builtins }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{{ [].__reduce_ex__(2) }}",
    "{{ (5).to_bytes(8, 'big') }}",
    "{{ messages.append(1) }}",
    "{{ messages.__setitem__(0, 1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends 'x' %}",
    "{{ self }}",
    "{% for x in [1] %}{{ loop }}{% endfor %}",
    "{{ namespace(a=1) }}",
    "{{ raise_exception }}",
]

GROW = "{% set n = namespace(x=START) %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}END"


def growing(start: str, step: str, end: str = "") -> str:
    return GROW.replace("START", start).replace("STEP", step).replace("END", end)


BOMBS = [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}",
    "{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro a() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call a() %}" * 18 + "x" + "{% endcall %}" * 18,
    "{{ range(10 ** 12)|list }}",
    "{{ 'x' * 10 ** 10 }}",
    "{{ 10 ** 10 * [0] }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    growing("3", "n.x * n.x"),
    growing("'ab'", "n.x + n.x"),
    growing("'ab'", "n.x ~ n.x"),
    growing("[1]", "n.x + n.x"),
    # Small until printed, compared or used as a key: the same part stands in them over and over.
    growing("[1]", "[n.x, n.x]", "{{ n.x }}"),
    growing("(1,)", "(n.x, n.x)", "{{ {n.x: 1} }}"),
    growing("1", "{'a': n.x, 'b': n.x}", "{{ n.x|tojson }}"),
    growing("1", "dict(a=n.x, b=n.x)", "{{ n.x|string }}"),
    growing("1", "namespace(a=n.x, b=n.x)", "{{ n.x }}"),
    growing("1", "namespace(a=n.x, b=n.x)", "{{ '%s' % n.x }}{{ [n.x]|tojson }}"),
    "{% set n = namespace(x=(1,)) %}{% for i in range(90000) %}{% set n.x = (n.x,) %}{% endfor %}{{ {n.x: 1} }}",
    "{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = n.x + [range(100000)|list] %}{% endfor %}",
    # Small ones that the counts of an earlier version did not see.
    "{% set v0 = 'x' * 1000000 %}"
    + "".join(f"{{% set v{i + 1} %}}{{{{ v{i} }}}}{{{{ v{i} }}}}{{% endset %}}" for i in range(12))
    + "{{ v12 }}",
    "{% set a = 'x' * 1000000 %}{% for i in range(1000) %}{{ a }}{% endfor %}",
    "{% set a = 'x' * 1000000 %}{{ " + " ~ ".join("a" * 1000) + " }}",
    "{% set x = ('f' * 4000000)|int(base=16) %}{{ x ** 64 }}",
    "{{ 'x'.center(10 ** 10) }}",
    "{{ 'x'|center(10 ** 10) }}",
    "{{ 'x'.expandtabs(10 ** 9) }}",
    "{{ 'x'.translate({120: 'y' * 10 ** 8}) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ ('%s' * 100000) % (('x' * 1000000,) * 100000) }}",
    "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}",
    "{{ ('x' * 1000000)|replace('', 'y' * 1000000) }}",
    "{{ (['x' * 1000000] * 100000)|join }}",
    "{{ ('x ' * 7000000).split(' ')|length }}",
    "{{ ('x' * 15000000)|list|length }}",
    "{% for c in 'x' * 15000000 %}{% endfor %}",
    "{{ messages|tojson(indent=10 ** 9) }}",
    "{{ ('\\n' * 1000000)|indent(1000) }}",
    "{{ [1, 2]|batch(10 ** 9, 'x')|list }}",
    "{{ 1|round(10 ** 9) }}",
    "{{ lipsum(10 ** 9) }}",
    "{{ ('[' * 90000 + ']' * 90000)|from_json }}",
    "{{ strftime_now('%Y' * 100000) }}",
    "{% set x %}{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}{% endset %}",
    "{% for i in range(100000) %}{{ range(100000)|list|sort|unique|list|length }}{% endfor %}",
    "{% for i in range(100000) %}{{ 'q' in (messages[0].content * 10000) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 3000,
    "{{ " + "-" * 20000 + "1 }}",
    "x" * (LONGEST_TEMPLATE + 1),
]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time, so that the tests take less; the machine may be as slow as it likes, since processor time counts."""
    monkeypatch.setattr(templates, "SECONDS", 0.03)


def failure(source: str) -> HermesError:
    with pytest.raises(HermesError) as caught:
        ChatTemplate(source).write(MESSAGES, ())
    return caught.value


@pytest.mark.parametrize("source", EXPLOITS)
def test_nothing_leads_out(source: str) -> None:
    written = ""  # what may not be read is undefined, and prints as nothing
    with suppress(HermesError):
        written = ChatTemplate(source).write(MESSAGES, ())
    assert written in {"", "[Undefined]"}


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:60])
def test_whatever_a_template_does_it_ends(source: str) -> None:
    before, text, fault = resources(), "", None
    try:
        text = ChatTemplate(source).write(MESSAGES, ())
    except HermesError as error:
        fault = error
    assert fault is None or (str(fault).startswith("the model's chat template ") and fault.hint)
    assert len(text) <= templates.CHARACTERS + 1000
    assert resources() - before < 50 << 20


def resources() -> int:
    """The most memory in bytes that this process ever had."""
    return most_memory() if sys.platform == "linux" else 0


def test_a_template_that_was_too_much_leaves_the_next_one_alone() -> None:
    template = ChatTemplate("{{ 'x' * (10 ** 12 if messages[0].content == 'much' else 1) }}")
    assert template.write(MESSAGES, ()) == "x"
    with pytest.raises(HermesError, match="too much time or memory"):
        template.write([{"role": "user", "content": "much"}], ())
    assert template.write(MESSAGES, ()) == "x"


def test_long_conversations_get_what_they_need() -> None:
    text = "é🕰 <b>\n" * 500_000
    assert ChatTemplate("{{ messages[0].content | trim }}!").write([{"role": "user", "content": text}], ()) == (
        text.strip() + "!"
    )


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(UsageError, match=r"broken in line 2: .*[^.]\.$"):
        ChatTemplate("{{ messages }}\n{% if %}")
    with pytest.raises(UsageError, match="No filter named 'centre'"):
        ChatTemplate("{{ messages|centre(80) }}")


def test_what_a_template_refuses_is_told() -> None:
    assert "roles must alternate" in failure("{{ raise_exception('roles must alternate') }}").message
    assert "division by zero" in failure("{{ 1 / 0 }}").message
    assert len(failure("{{ raise_exception('x' * 100000) }}").message) < 600


# Every kind of thing that chat templates do to text, as they do it.
HONEST = [
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}",
    "{% for m in messages %}{{ '<|im_start|>' ~ m['role'] ~ m.content | trim ~ '<|im_end|>' }}{% endfor %}",
    "{% for m in messages %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endfor %}",
    "{% for m in messages %}{{ m.content.split('</think>')[0].rstrip('\n').split('<think>')[-1] }}|{% endfor %}",
    "{% for m in messages %}{% if '</think>' in m.content %}{{ m.content.split('</think>', 1)[1] }}{% endif %}{% endfor %}",
    "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.content[1:] }}{{ m.content[:-1] }}{{ m.content[0:1] }}{% endfor %}",
    "{% macro render(content) %}{% if content is string %}{{ content }}{% endif %}{% endmacro %}{{ render(messages[0].content) | trim }}",
    "{% set text %}{{ messages[0].content }}<|im_end|>{% endset %}{{ text.strip() + text | length | string }}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ messages | tojson(ensure_ascii=True, separators=(',', ':')) }}",
    "{{ messages | map(attribute='content') | join('<|im_end|>') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages[0].content.replace('<', '<|im_end|>') | upper }}{{ messages[0].content | replace('a', '') | lower | title | capitalize }}",
    "{% for letter in messages[0].content %}{{ letter }}{% if not loop.last %}-{% endif %}{% endfor %}",
    "{{ '{} and {x}'.format(messages[0].content, x=1) }}{{ '%s|%d' % (messages[0].content, 7) }}{{ messages[0].content * 2 }}",
    "{% filter upper %}{{ messages[0].content }}<|im_end|>{% endfilter %}{{ messages[0].content | default('x', true) | indent(2) }}",
    "{% set n = namespace(out='') %}{% for m in messages %}{% set n.out = n.out + m.content %}{% endfor %}{{ n.out }}",
    "{{ messages[0].items() | list }}{{ messages | length }}{{ messages[0] | dictsort }}{{ [messages[0].content, 'b'] | sort | first }}",
    "{{ messages[0].content.startswith(' ') }}{{ messages[0].content.endswith('\n') }}{{ messages[0].content.find('a') }}",
    "{% generation %}{{ messages[-1].content }}{% endgeneration %}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "{{ none }}{{ true }}{{ 1.5 }}{{ undefined_thing }}{{ messages[9] }}{{ (1, 2) }}{{ {'a': messages[0].content} }}",
]
CONTENT = st.lists(
    st.sampled_from(
        [
            "<|im_end|>",
            "<|im_start|>",
            "<think>",
            "</think>",
            "<tool_call>",
            "<",
            "|",
            " ",
            "\n",
            "a",
            "é",
            "ß",
            "%s",
            "{}",
        ]
    ),
    max_size=8,
).map("".join)


@cache
def compiled(source: str) -> ChatTemplate:
    return ChatTemplate(source)


@cache
def reference(source: str) -> jinja2.Template:
    """As transformers has it (utils/chat_template_utils.py)."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
    return environment.from_string(source.replace("{% generation %}", "").replace("{% endgeneration %}", ""))


def talk(first: str, second: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": first}, {"role": "assistant", "content": second}]


SPECIALS = SpecialTexts(["<|im_start|>", "<|im_end|>"])
LOOKS_INSIDE = [source for source in HONEST if "letter" in source or "[1:]" in source or "find(" in source]


def guarded(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": one["role"], "content": SPECIALS.guard(one["content"])} for one in messages]


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2)
@given(first=CONTENT, second=CONTENT)
def test_honest_templates_write_what_jinja_writes(first: str, second: str) -> None:
    messages = talk(first, second)
    for source in HONEST:
        assert compiled(source).write(messages, ()) == reference(source).render(messages=messages), source


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 2)
@given(first=CONTENT, second=CONTENT)
def test_no_control_token_comes_from_what_was_said(first: str, second: str) -> None:
    for source in HONEST:
        if source in LOOKS_INSIDE:
            continue
        text = compiled(source).write(guarded(talk(first, second)), ())
        if not any(part in source for part in ("replace('<'", "length", "think>")):
            assert plain(text) == reference(source).render(messages=talk(first, second)), source
        pieces = SPECIALS.cut(text)
        assert "".join(pieces) == plain(text), source
        for token in ("<|im_start|>", "<|im_end|>"):
            survived = sum(piece.count(token) for piece in pieces)
            assert survived == 0 or token in source, source
            if source in HONEST[:2]:
                assert survived == 2, source


def test_a_template_cannot_be_made_to_put_a_control_token_together() -> None:
    """It takes something out of the middle, or goes letter by letter, and what is left looks like a control token."""
    for source, said in [
        ("{{ messages[0].content.replace('/no_think', '') }}", "<|im_/no_thinkend|>"),
        ("{% for letter in messages[0].content %}{{ letter }}{% endfor %}", "<|im_end|>"),
        ("{{ messages[0].content | list | join }}", "<|im_end|>"),
        ("{{ messages[0].content | upper | lower }}", "<|im_end|>"),
        ("{{ messages[0].content[::-1] }}", ">|dne_mi|<"),
        ("{{ messages | tojson | from_json | map(attribute='content') | join }}", "<|im_end|>"),
        ("{{ '%s' % messages[0].content }}", "<|im_end|>"),
        ("{{ '{}'.format(messages[0].content) }}", "<|im_end|>"),
        ("{{ messages }}", "<|im_end|>"),
        ("{{ '<|im_' + messages[0].content }}", "end|>"),
        ("{{ '<' + messages[0].content + '>' }}", "|im_end|"),
    ]:
        text = ChatTemplate(source).write(guarded([{"role": "user", "content": said}]), ())
        assert "<|im_end|>" in plain(text)
        assert not any("<|im_end|>" in piece for piece in SPECIALS.cut(text)), source


def test_special_tokens_and_the_clock_are_there() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{{ strftime_now('%Y')|length }}{{ messages|tojson }}{{ eos_token }}", bos="<s>", eos="</s>"
    )
    assert (
        template.write([{"role": "user", "content": "é <b>"}], ()) == '<s>4[{"role": "user", "content": "é <b>"}]</s>'
    )


def test_jinja_is_new_enough() -> None:
    """CVE-2025-27516 is open before 3.1.6."""
    assert tuple(map(int, jinja2.__version__.split(".")[:3])) >= (3, 1, 6)
