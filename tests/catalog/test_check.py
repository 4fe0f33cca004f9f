from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli import paths
from hermes_cli.catalog.check import CatalogueFault, find_faults

# Three models are enough to make every mistake, and much faster than thirty.
TEXT = paths.catalog().read_text(encoding="utf-8").partition("\n  - id: hermes-4-14b")[0] + "\n"
LINES = TEXT.splitlines(keepends=True)


def line_of(text: str, piece: str) -> int:
    return text[: text.index(piece)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("layers: 64", "layers: many", "Expected `int`, got `str`"),
        ("layers: 64", "layers: 0", "Expected `int` >= 1"),
        ("layers: 64", "layers: 63", "the architecture has 35,611,065,344 parameters"),
        ("kv_heads: 8, head_length", "kv_heads: 7, head_length", "7 KV heads do not divide 80 heads"),
        ("tools: true", "toolz: true", "the key toolz is unknown; did you mean tools?"),
        ("    parameters: 36151104512\n", "", "the key parameters is missing"),
        ("listed_gb: 17.62", "listed_gb: 17.2", "17.2 GB, but llama.cpp's rules give 17.62 GB"),
        ("bytes: 21762145216", "bytes: 21862145216", "21,862,145,216 bytes, but llama.cpp's rules give 21,762,144,624"),
        ("sampling: [card, page]", "sampling: [card, pge]", "there is no source pge"),
        ("short: hermes-4:70b", "short: Hermes-4 70b", "Expected `str` matching regex"),
        ("short: hermes-4:70b", "short: hermes-4:405b", "the name hermes-4:405b already belongs to hermes-4-405b"),
        ("usable: 524288", "usable: 524289", "524,289 is more than the trained 524,288 tokens"),
        ("Q3_K_M: {listed_gb: 17.62}", "Q3_KM: {listed_gb: 17.62}", "there is no quantization Q3_KM"),
        ("same_as: Q6_K,", "same_as: Q6,", "there is no quantization Q6"),
        ("Q4_K_M: {shards: 18}", "Q4_K_M: {shards: 18, parts: 2}", "split in shards or in parts, not both"),
        ("released: [releases, dated", "relased: [releases, dated", "relased is not a key of a model"),
        ("format: llama-3", "format: llama3", "Invalid enum value 'llama3'"),
        ("sha256: 17823599", "sha256: 1782359", "Expected `str` matching regex"),
    ],
)
def test_explains_each_fault_by_line(old: str, new: str, says: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    found = find_faults(text)
    assert any(says in fault.message for fault in found), found
    wanted = line_of(TEXT, old)
    assert all(abs(fault.line - wanted) < 120 for fault in found)


def test_the_line_is_the_very_line() -> None:
    text = TEXT.replace("listed_gb: 17.62", "listed_gb: -1", 1)
    assert find_faults(text) == [
        CatalogueFault(
            line_of(text, "listed_gb: -1"),
            "models.hermes-4.3-36b.gguf.NousResearch/Hermes-4.3-36B-GGUF.quantizations.Q3_K_M.listed_gb",
            "Expected `float` > 0.0",
        )
    ]


def test_all_faults_at_once() -> None:
    text = TEXT.replace("tools: true", "tools: 1", 1).replace("short: hermes-4:70b", "short: x", 1)
    assert len(find_faults(text)) == 2


def test_a_key_twice() -> None:
    text = TEXT.replace("    tools: true\n", "    tools: true\n    tools: true\n", 1)
    found = find_faults(text)
    assert [fault.message for fault in found] == ["the key tools occurs twice"]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("a: b\nc: [", 3, "not YAML"),
        ("models: 3", 1, "the key demo is missing"),
        ("- a\n- b\n", 1, "Expected `object`, got `array`"),
        ("a: !!python/object:os.system x", 1, "not YAML"),
        ("a: \x00", 1, "not YAML"),
    ],
)
def test_what_is_no_catalogue(text: str, line: int, says: str) -> None:
    found = find_faults(text)
    assert says in found[0].message
    assert found[0].line == line or "\x00" in text


@pytest.mark.slow
@given(st.integers(0, len(LINES) - 1), st.sampled_from(["", "\t", "  x: [\n", "    tools: {a: 1}\n", "&a [*a]\n"]))
def test_no_edit_of_a_line_crashes_it(number: int, line: str) -> None:
    for fault in find_faults("".join([*LINES[:number], line, *LINES[number + 1 :]])):
        assert 1 <= fault.line <= len(LINES) + 2
        assert fault.message
