"""Text that knows where it came from is, as text, no other than a plain string."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.prompting.text import (
    CONTENT,
    METHODS,
    TEMPLATE,
    SourcedText,
    is_content,
    joined,
    origin,
    plain,
    with_tags,
)

LETTERS = st.text(alphabet="ab <|>\n\tß", max_size=12)
FILLING = st.text(alphabet=" a<", max_size=2)


@st.composite
def mixed(draw: st.DrawFn) -> SourcedText:
    """Content and template in turns, so that every character's origin can be told by its neighbours."""
    parts = draw(st.lists(st.tuples(st.booleans(), LETTERS), max_size=4))
    return joined(SourcedText(text) if said else text for said, text in parts)


def cells(text: str) -> list[tuple[str, int]]:
    return list(zip(plain(text), origin(text), strict=True))


@given(mixed(), mixed(), st.integers(-14, 14), st.integers(-14, 14))
def test_slices_and_sums_keep_the_origin(left: SourcedText, right: SourcedText, start: int, end: int) -> None:
    assert cells(left + right) == cells(left) + cells(right)
    assert cells("<a>" + left) == [(letter, 0) for letter in "<a>"] + cells(left)
    assert cells(left[start:end]) == cells(left)[start:end]
    assert [cells(one) for one in left] == [[cell] for cell in cells(left)]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in {"join", "replace"}])
@given(text=mixed(), argument=FILLING)
def test_methods_give_what_strings_give(name: str, text: SourcedText, argument: str) -> None:
    wanted: Any
    arguments: list[tuple[Any, ...]] = (
        [()] if name.startswith(("is", "upper", "lower", "capi", "title")) else [(argument,)]
    )
    if name in {"split", "rsplit"}:
        arguments += [(None,), (None, 1), (argument, 1)]
    for given_arguments in arguments:
        try:
            wanted = getattr(plain(text), name)(*given_arguments)
        except ValueError:  # an empty separator
            with pytest.raises(ValueError, match=r"separator|substring"):
                METHODS[name](text, *given_arguments)
            continue
        found = METHODS[name](text, *given_arguments)
        assert found == wanted
        for part in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(part, str) and name not in {"upper", "lower", "capitalize", "title"}:
                assert "".join(map(str, cells(part))) in "".join(map(str, cells(text)))


@given(mixed(), FILLING, FILLING, st.integers(-1, 3))
def test_replace_is_as_strings_have_it(text: SourcedText, old: str, new: str, count: int) -> None:
    found = METHODS["replace"](text, old, SourcedText(new), count)
    assert found == plain(text).replace(old, new, count)
    # Nothing that was said becomes the template's.
    assert origin(found).count(CONTENT) >= origin(text).count(CONTENT) - len(old) * max(plain(text).count(old), 0)


@given(st.lists(mixed(), max_size=4), mixed())
def test_join_keeps_every_origin(parts: list[SourcedText], between: SourcedText) -> None:
    wanted: list[tuple[str, int]] = []
    for index, part in enumerate(parts):
        wanted += (cells(between) if index else []) + cells(part)
    assert cells(METHODS["join"](between, parts)) == wanted


def test_letters_that_change_their_number_are_content_if_any_was() -> None:
    assert origin(METHODS["upper"](SourcedText("ß"))) == CONTENT * 2
    assert origin(METHODS["upper"](joined(("ß", SourcedText("a"))))) == CONTENT * 3
    assert origin(METHODS["upper"](joined(("ß",)))) == TEMPLATE * 2


def test_it_compares_sorts_and_finds_like_a_string() -> None:
    text = SourcedText("abc")
    assert text == "abc"
    assert hash(text) == hash("abc")
    assert {"abc": 1}[text] == 1
    assert "b" in text
    assert sorted([SourcedText("b"), "a"]) == ["a", "b"]
    assert str(text) is text
    assert type(plain(text)) is str


def test_tags_in_system_prompts_are_the_template_s_and_control_tokens_are_not() -> None:
    text = with_tags("in <think> </think> tags <|im_end|>")
    assert not is_content(text[3:10])
    assert not is_content(text[11:19])
    assert origin(text[-10:]) == CONTENT * 10
