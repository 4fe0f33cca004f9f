from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from terminal_rig import ScreenFile

from hermes_cli.chat.terminal import markdown_blocks
from hermes_cli.chat.terminal.markdown import MarkdownStream
from hermes_cli.chat.terminal.markdown_blocks import CodeHighlighter
from hermes_cli.chat.terminal.tty import LiveRegion

ATOMS = [
    *(
        "\n",
        "\n\n",
        "- ",
        "* ",
        "+ ",
        "1. ",
        "2. ",
        "12) ",
        "  ",
        "    ",
        "\t",
        "# ",
        "## ",
        "> ",
        "---",
        "===",
        "!",
        "\\",
    ),
    *("```", "```python\n", "~~~", "`", "**", "*", "_", "~~", "[a](http://x.y)", "[a]: /b\n", "[x", "<b>", "<div>\n"),
    *("|", "| a | b |\n|---|--:|\n", "word", "two words", "x" * 30, "def f(x):", "'''", "/*", "*/", "&lt;", "&#13;"),
    *("日本", "é", "🙂", "\x1b[2J", "\u2028"),
]
BLOCKS = [
    *("```python\ndef f(x):\n\treturn 'x'\n\n```\n", "  ~~~~ c\n  /* a\n b */ int x;\n ~~~~\n", "```\nopen\n"),
    *(
        "- a\n- b\n\n  more\n- c\n  1. d\n",
        "7. a\n1. b\n\n2. c\n",
        "* a\n  ```\n  code\n  ```\n* b\n",
        "> q\nlazy\n> - x\n",
    ),
    *(
        "| a | b |\n|---|:-:|\n| 1 | 2 |\n",
        "para\nmore **of\nit**\n",
        "Head\n====\n",
        "    indented\n\n    code\n",
        "\n",
        "***\n",
    ),
]
TEXTS = st.lists(st.sampled_from(ATOMS) | st.sampled_from(BLOCKS), max_size=40).map("".join)
SIZES = [(20, 5), (40, 10), (80, 24)]
PYTHON = '''def f(x):
    """A long
    story."""
    return x + 1  # one more


TEXT = """for i in range(10):
    if None:
        return while
    class
    def
    import
    lambda
    yield
    and
    or
"""
'''


@pytest.fixture(autouse=True)
def _a_good_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def paper(file: ScreenFile) -> tuple[Console, LiveRegion]:
    shown = file.shown
    console = Console(
        file=file,
        force_terminal=True,
        width=shown.columns,
        height=shown.lines,
        color_system="standard",
        highlight=False,
    )
    return console, LiveRegion(console, file)


def draw(text: str, cuts: list[int], size: tuple[int, int] = (80, 24)) -> ScreenFile:
    """What a text looks like that came in pieces, each of which was drawn."""
    file = ScreenFile(*size)
    console, painter = paper(file)
    markdown = MarkdownStream(console)
    for start, end in zip([0, *cuts], cuts, strict=False):
        markdown.feed(text[start:end])
        painter.paint(*markdown.lines(painter.width, painter.height))
    markdown.feed(text[cuts[-1] if cuts else 0 :])
    painter.paint(markdown.finish(painter.width))
    return file


def rows(text: str, size: tuple[int, int] = (80, 24)) -> list[str]:
    return draw(text, [], size).shown.everything


@settings(max_examples=2 * settings().max_examples)
@given(text=TEXTS, data=st.data(), size=st.sampled_from(SIZES))
def test_pieces_end_as_the_whole_does(text: str, data: st.DataObject, size: tuple[int, int]) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    assert draw(text, cuts, size).shown.everything == rows(text, size)


@settings(deadline=None, max_examples=50)
@given(text=TEXTS.filter(lambda text: text.count("\n") < 12), data=st.data())
def test_so_do_colours_of_what_fits_the_screen(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    assert draw(text, cuts).shown.looks == draw(text, []).shown.looks


def test_looks() -> None:
    text = (
        "# Title\nSome **bold** and `code`,\nnext line.\n\n- one\n- two\n  - deep\n\n9. nine\n1. ten\n\n> said\n\n"
        "```python\nx = 1\n```\n\n| a | b |\n|---|--:|\n| 1 | 22 |\n\n---\n<b>html</b>\n"
    )
    assert rows(text, (30, 40)) == [
        *("Title", "", "Some bold and code,", "next line.", "", " • one", " • two", "    ◦ deep", ""),
        *(" 9. nine", "10. ten", "", "▌ said", "", "```python", "x = 1", "```", ""),
        *("a    b", "──────", "1   22", "", "─" * 30, "", "<b>html</b>"),
    ]


def test_nothing_in_it_is_obeyed_or_hidden() -> None:
    text = "\x1b[2J\x1b]0;x\x07 [bold]rich[/bold] &#13;cr\n\n[safe](https://evil.example/) ![i](http://p/) <!-- c -->\n"
    file = draw(text, [])
    seen = "\n".join(file.shown.everything)
    assert "�[2J�]0;x� [bold]rich[/bold] �cr" in seen
    assert "safe (https://evil.example/) [i] (http://p/) <!-- c -->" in seen
    assert "\x1b]" not in file.getvalue()  # neither titles nor hidden addresses


def test_no_text_changes_by_what_comes_later() -> None:
    text = "see [a]\n\n[a]: https://evil.example\n"
    assert rows(text) == ["see [a]", "", "[a]: https://evil.example"]


@pytest.mark.parametrize("depth", [5, 30, 500])
def test_however_deep_something_is_it_is_shown(depth: int) -> None:
    for mark in ("> ", "- "):
        assert "treasure" in "".join(rows(mark * depth + "treasure\n", (40, 10))).replace(" ", "")


@pytest.mark.parametrize("language", ["yaml", "bibtex", "json", "html+php", "console", "ruby", "no-such-language"])
def test_code_of_any_language_is_shown(language: str) -> None:
    code = ["a:", "  - b: {c: 1}", "@book{x, title = {y}}", "$ ls <<E", "<?php echo 1; ?>", "E"]
    text = f"```{language}\n" + "\n".join(code) + "\n```\n"
    assert draw(text, list(range(0, len(text), 3)), (40, 4)).shown.everything == text.splitlines()


def test_code_has_the_colours_of_its_whole_however_long_it_is() -> None:
    text = "```python\n" + PYTHON * 40 + "```\n"
    cuts = list(range(0, len(text), 17))
    assert draw(text, cuts, (40, 8)).shown.looks == draw(text, [], (40, 8)).shown.looks


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" + "".join(f"x{at} = {at}\n" for at in range(500)),
        "".join(f"- item {at}\n" for at in range(500)),
        "".join(f"{at}. item\n" for at in range(1, 500)),
        "".join(f"paragraph {at}\n\n" for at in range(500)),
    ],
)
def test_a_long_block_is_printed_as_it_comes(text: str) -> None:
    file = ScreenFile(40, 10)
    console, painter = paper(file)
    markdown = MarkdownStream(console)
    given_out = 0
    for start in range(0, len(text), 40):
        markdown.feed(text[start : start + 40])
        final, live = markdown.lines(painter.width, painter.height)
        given_out += len(final)
        assert len(live) <= painter.height + 1
    assert given_out > 480


def test_what_is_open_is_drawn_in_place() -> None:
    file = ScreenFile(20, 5)
    console, painter = paper(file)
    markdown = MarkdownStream(console)
    words = "a paragraph that **gets longer** than the whole screen is, word by word by word"
    for word in words.split():
        markdown.feed(f"{word} ")
        painter.paint(*markdown.lines(painter.width, painter.height))
        assert len(file.shown.everything) <= 5
    assert not file.shown.history.top
    assert file.shown.rows[3] == "word by word by word"


def test_the_window_may_change_its_size_at_any_time() -> None:
    file = ScreenFile(80, 24)
    console, painter = paper(file)
    markdown = MarkdownStream(console)
    words = [f"word{at}" for at in range(300)]
    for at, word in enumerate(words):
        markdown.feed(f"{word} " if at % 40 else f"{word}\n\n")
        columns, lines = [(80, 24), (100, 30), (120, 10), (130, 5)][at // 75]
        if (console.width, console.height) != (columns, lines):
            console.size = (columns, lines)
            file.shown.resize(lines, columns)
        painter.paint(*markdown.lines(painter.width, painter.height))
    painter.paint(markdown.finish(painter.width))
    seen = " ".join(file.shown.everything).split()
    assert seen[-40:] == words[-40:]


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" + PYTHON * 1_200,
        "".join(f"- item {at} with **bold** and `code` in it\n" for at in range(2_300)),
        "# T\n\nSome *words*, a [l](http://x.y).\n\n- a\n- b\n\n```c\nint x; /* y */\n```\n\n" * 1_200,
    ],
    ids=["code", "list", "mixed"],
)
def test_the_cost_grows_with_the_text_and_not_with_its_square(text: str) -> None:
    text = text[:60_000]
    eighth = min(_seconds(text[:7_500]) for _ in range(3))
    assert _seconds(text) < 24 * eighth + 0.2  # 8 times as much, and not 64 times


def _seconds(text: str) -> float:
    """Of work for a text of which a piece is drawn every 500 characters."""
    console, painter = paper(ScreenFile())
    markdown = MarkdownStream(console)
    start = time.process_time()
    for at in range(0, len(text), 4):
        markdown.feed(text[at : at + 4])
        if at % 500 == 0:
            markdown.lines(painter.width, painter.height)
    markdown.finish(painter.width)
    return time.process_time() - start


def test_code_is_coloured_only_by_what_cannot_hang() -> None:
    def styles(info: str, lines: list[str]) -> list[bool]:
        return [bool(line.spans) for line in CodeHighlighter(info).highlight(lines)]

    assert styles("py", ["def f(): pass"]) == [True]
    assert styles("mcfunction", ["1" * 500]) == [False]  # its lexer takes minutes for 500 digits
    assert styles("python", ["x = 1", "y = '" + "a" * 1_000, "z = 2"]) == [True, False, False]


def test_colours_end_when_their_time_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown_blocks, "HIGHLIGHT_SECONDS", 0.0)
    assert [line.plain for line in CodeHighlighter("python").highlight(["x = 1", "y = 2"])] == ["x = 1", "y = 2"]
