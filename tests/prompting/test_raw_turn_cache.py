"""What the model wrote, by the ids of its calls."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

from hermes_cli.prompting.compose import RawTurnCache
from hermes_cli.prompting.messages import Message, ToolCall


def turn(key: str, content: str | None = "I look.", **arguments: object) -> Message:
    return Message("assistant", content, (ToolCall("f", arguments, key), ToolCall("g", {}, f"{key}-2")))


def test_the_same_turn_is_recalled_and_a_changed_one_is_not() -> None:
    memory = RawTurnCache()
    memory.remember(turn("a", x=1), "written")
    assert memory.recall(turn("a", x=1)) == "written"
    assert memory.recall(turn("a", x=1.0)) == "written"  # the same number
    assert memory.recall(turn("a", "I look. ", x=1)) == "written"
    assert memory.recall(turn("a", None, x=1)) == "written"  # some clients leave it out
    assert memory.recall(turn("a", "I looked.", x=1)) is None
    assert memory.recall(turn("a", x=2)) is None
    assert memory.recall(turn("b", x=1)) is None
    one = turn("a", x=1)
    assert memory.recall(replace(one, tool_calls=one.tool_calls[:1])) is None
    assert memory.recall(replace(one, tool_calls=one.tool_calls[::-1])) is None
    assert memory.recall(Message("assistant", "I look.")) is None


def test_turns_without_calls_have_no_id() -> None:
    memory = RawTurnCache()
    memory.remember(Message("assistant", "a"), "written")
    assert memory.recall(Message("assistant", "a")) is None


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    memory = RawTurnCache(turns=2)
    for key in "ab":
        memory.remember(turn(key), key)
    assert memory.recall(turn("a")) == "a"
    memory.remember(turn("c"), "c")
    assert [memory.recall(turn(key)) for key in "abc"] == ["a", None, "c"]


def test_it_holds_only_so_much_text() -> None:
    memory = RawTurnCache(characters=10)
    memory.remember(turn("a"), "x" * 6)
    memory.remember(turn("a"), "y" * 6)  # in place of the first
    memory.remember(turn("b"), "x" * 4)
    assert [memory.recall(turn(key)) for key in "ab"] == ["y" * 6, "x" * 4]
    memory.remember(turn("c"), "x" * 5)
    assert [memory.recall(turn(key)) for key in "abc"] == [None, "x" * 4, "x" * 5]
    memory.remember(turn("d"), "x" * 11)
    assert memory.recall(turn("d")) is None
    assert memory.recall(turn("b")) == "x" * 4


def test_threads_share_it() -> None:
    memory, found = RawTurnCache(turns=50), []

    def work(name: str) -> None:
        for at in range(300):
            memory.remember(turn(f"{name}{at}"), f"{name}{at}")
            found.append(memory.recall(turn(f"{name}{at}")) in {f"{name}{at}", None})

    threads = [Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 1200
    kept = [memory.recall(turn(f"{name}{at}")) for name in "abcd" for at in range(300)]
    assert sum(text is not None for text in kept) == 50
