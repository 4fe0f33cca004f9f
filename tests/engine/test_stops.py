from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.output_text import StopTexts

SMALL = st.text("ab#<", max_size=30)
TEXTS = st.lists(st.text("ab#<", min_size=1, max_size=4), max_size=3)


def run(stops: StopTexts, pieces: list[str]) -> str:
    shown = ""
    for piece in pieces:
        shown += stops.feed(piece)
        if stops.matched:
            return shown
    return shown + stops.finish()


@given(SMALL, TEXTS, st.lists(st.integers(1, 5), max_size=40))
def test_the_text_ends_where_the_first_stop_begins_however_it_is_cut(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    # A stop text that is whole ends the answer, even if a longer one that began before it could still follow.
    shown = run(StopTexts(stops), [*pieces, rest])
    first_whole = (
        min((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text) if ends else None
    )
    if first_whole is None:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert len(shown) <= first_whole[1]


def test_nothing_is_held_back_without_stops() -> None:
    assert StopTexts().feed("<|im") == "<|im"


def test_what_cannot_become_a_stop_comes_at_once() -> None:
    stops = StopTexts(["###"])
    assert stops.feed("a #") == "a "
    assert stops.feed("b ##") == "#b "
    assert stops.feed("# c") == ""
    assert stops.matched == "###"
    assert stops.feed("more") == ""


def test_many_long_stops_that_almost_come() -> None:
    """As many and as long as requests may have them; each token is looked at once, not each beginning of each text."""
    stops = StopTexts([f"{'ab' * 511}{number:02}" for number in range(64)])
    text = "ab" * 2000
    assert "".join(map(stops.feed, text)) + stops.finish() == text
    assert stops.feed("ab" * 511 + "07 more") == ""
    assert stops.matched == "ab" * 511 + "07"
