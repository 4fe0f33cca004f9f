"""Screens at four widths: as they were looked at, and nothing cut in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import screens

from hermes_cli.text_layout import Table, command_lines, wrap

UNITS = {
    "s",
    "min",
    "h",
    "B",
    "M",
    "kB",
    "MB",
    "GB",
    "GiB",
    "GB/s",
    "tokens",
    "tokens/s",
    "%",
    "points",
    "bits",
    "cores",
}
LONGEST = 300  # columns: everything has room


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with screens.library() as folder:
        yield folder


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("name", screens.SCREENS)
def test_a_screen_is_as_it_was_looked_at(name: str, folder: Path) -> None:
    """Changed on purpose? Look at the difference of `make screens`."""
    assert screens.page(name, folder) == (screens.FOLDER / f"{name}.txt").read_text("utf-8")


def test_there_is_no_screen_of_nothing() -> None:
    assert {path.stem for path in screens.FOLDER.iterdir()} == set(screens.SCREENS)


def words(rows: Iterable[str]) -> Iterator[str]:
    for row in rows:
        yield from (word.rstrip(":") for word in row.removesuffix(" \\").split() if not set(word) <= set("█▓▒░"))


@pytest.mark.parametrize("columns", [40, 57, 80, 100])
@pytest.mark.parametrize("name", [name for name in screens.SCREENS if name != "help"])
def test_no_word_number_or_unit_is_cut(name: str, columns: int, folder: Path) -> None:
    note = "no room for FILE and SIZE: widen the terminal, or use --json"
    whole = set(words([note, *screens.screen(name, LONGEST, folder)]))
    long = [word for word in whole if len(word) >= columns - 4]  # no line has room for them
    rows = screens.screen(name, columns, folder)
    assert not [word for word in words(rows) if word not in whole and not any(word in other for other in long)]
    for above, below in pairwise(rows):
        number = above.endswith(tuple("0123456789"))
        assert not (number and below.strip().split(" ")[0].rstrip(".,;)") in UNITS), (above, below)


def test_text_breaks_between_words_and_not_in_a_command() -> None:
    text = "error: it takes 4.92 GB; fetch it: hermes pull hermes-3:8b:Q4_K_M --yes, or leave it"
    lines = wrap(text, 40, "  ")
    assert lines == ["error: it takes 4.92 GB; fetch it:", "  hermes pull hermes-3:8b:Q4_K_M --yes,", "  or leave it"]
    assert wrap("it takes 4.92 GB", 14) == ["it takes", "4.92 GB"]
    assert wrap(text, 200) == [text]
    assert wrap('exact: --apple "M4 Max 64G"', 20, "  ") == ["exact: --apple", '  "M4 Max 64G"']
    assert wrap("error: hermes chat has no option --x.", 30, "  ") == ["error: hermes chat has no", "  option --x."]


def test_a_long_name_breaks_after_a_sign_but_not_what_is_copied() -> None:
    name = "  from NousResearch/Hermes-3-Llama-3.1-8B-GGUF:Q4_K_M, here"
    assert wrap(name, 30) == ["  from", "  NousResearch/Hermes-3-Llama-", "  3.1-8B-GGUF:Q4_K_M,", "  here"]
    copied = (
        "https://huggingface.co/NousResearch",
        "/home/ada/models/some-file.gguf",
        "~/.cache/huggingface/hub/models",
    )
    for word in copied:
        assert wrap(f"see {word}", 20) == ["see", word]
    command = "next: hermes pull NousResearch/Hermes-3-Llama-3.1-8B-GGUF"
    assert wrap(command, 30)[-1] == "NousResearch/Hermes-3-Llama-3.1-8B-GGUF"


def test_a_long_command_goes_on_as_a_shell_reads_it() -> None:
    command = "  hermes chat hermes-3:3b:Q4_K_M --context 16384"
    assert command_lines(command, 80) == [command]
    assert command_lines(command, 40) == ["  hermes chat hermes-3:3b:Q4_K_M \\", "    --context 16384"]


def test_columns_leave_by_rank_then_prose_wraps_then_rows_become_blocks() -> None:
    rows = [("some-model", "4.92 GB", "it is not what the Hub says it is", "some-Q4_K_M.gguf")]
    table = Table(("NAME", "SIZE", "NOTE", "FILE"), rows, right=("SIZE",), optional=("FILE",), prose="NOTE")
    assert [line for line, _ in table.lines(80)[0]][1].endswith("some-Q4_K_M.gguf")
    lines, left = table.lines(60)
    assert ([line.split()[-1] for line, _ in lines], left) == (["NOTE", "is"], ["FILE"])
    assert [line for line, _ in table.lines(50)[0]][1:] == [
        "some-model  4.92 GB  it is not what the Hub says",
        "                     it is",
    ]
    assert [line for line, _ in table.lines(40)[0]] == [
        "some-model",
        "  SIZE 4.92 GB",
        "  NOTE it is not what the Hub says it is",
        "  FILE some-Q4_K_M.gguf",
    ]
