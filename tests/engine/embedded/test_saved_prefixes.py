"""Prompt caches on disk, of the real demo model."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from desk import Desk, turn

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.saved_prefixes import LEFTOVER_AGE, fingerprint

SYSTEM = "You are Hermes Demo. " + "Be brief and kind to everybody who asks. " * 12


def test_prefixes_survive_on_disk(demo_model: LlamaModel, tmp_path: Path) -> None:
    first = Desk(demo_model, saved=tmp_path / "prefixes")
    expected, _ = first.answer(turn("Who are you?", SYSTEM), max_tokens=20)
    first.scheduler.close()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "prefixes").rglob("*"))
    again = Desk(demo_model, saved=tmp_path / "prefixes")
    text, done = again.answer(turn("Who are you?", SYSTEM), max_tokens=20)
    assert (text, done.cached_tokens) == (expected, done.prompt_tokens - 1)


def test_a_prefix_on_disk_is_its_client_s_alone(demo_model: LlamaModel, tmp_path: Path) -> None:
    first = Desk(demo_model, saved=tmp_path)
    for client in ("alice", "bob"):
        first.answer(turn(f"I am {client}.", SYSTEM), max_tokens=1, client=client)
    first.scheduler.close()
    assert len(list(tmp_path.glob("*/*.cache"))) == 2
    for client, kept in (("eve", False), ("bob", True), ("alice", True)):
        _, done = Desk(demo_model, saved=tmp_path).answer(turn("Hi.", SYSTEM), max_tokens=1, client=client)
        assert (done.cached_tokens > 100) == kept, client


def test_a_client_that_gets_another_s_name_does_not_get_its_prefix(demo_model: LlamaModel, tmp_path: Path) -> None:
    first = Desk(demo_model, saved=tmp_path, owners={"alice": "her key"})
    first.answer(turn("I am Alice.", SYSTEM), max_tokens=1, client="alice")
    first.scheduler.close()
    for owner, kept in (("another key", False), ("her key", True)):
        desk = Desk(demo_model, saved=tmp_path, owners={"alice": owner})
        _, done = desk.answer(turn("Hi.", SYSTEM), max_tokens=1, client="alice")
        assert (done.cached_tokens > 100) == kept, owner


def test_prefixes_follow_a_model_s_content_and_not_its_place(tmp_path: Path) -> None:
    model, moved = tmp_path / "model.gguf", tmp_path / "moved.gguf"
    raw = bytes(range(256)) * (1 << 14)
    model.write_bytes(raw)
    known, times = fingerprint(model), model.stat()
    moved.write_bytes(raw)
    assert fingerprint(moved) == known
    for at in (0, len(raw) - 1):
        model.write_bytes(raw[:at] + b"x" + raw[at + 1 :])
        os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert fingerprint(model) != known


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_prefix_is_computed_again(demo_model: LlamaModel, tmp_path: Path, damage: bytes | None) -> None:
    first = Desk(demo_model, saved=tmp_path)
    expected, _ = first.answer(turn("Who are you?", SYSTEM), max_tokens=20)
    first.scheduler.close()
    (cache,) = tmp_path.glob("*/*.cache")
    cache.write_bytes(cache.read_bytes()[:-1000] if damage is None else damage)
    text, done = Desk(demo_model, saved=tmp_path).answer(turn("Who are you?", SYSTEM), max_tokens=20)
    assert (text, done.cached_tokens) == (expected, 0)
    assert not list(tmp_path.glob("*/*"))


def test_two_engines_may_write_the_same_prefix_at_once(
    demo_model: LlamaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = Desk(demo_model, saved=tmp_path), Desk(demo_model, saved=tmp_path)
    expected, _ = first.answer(turn("Who are you?", SYSTEM), max_tokens=20)
    other.answer(turn("Who are you?", SYSTEM), max_tokens=20)
    save = first.context.save

    def half_written(path: Path, *_: object) -> int:
        path.write_bytes(b"half a file")
        return 0

    def meanwhile(path: Path, sequence: int, tokens: list[int]) -> int:
        size = save(path, sequence, tokens)
        other.scheduler.close()
        return size

    monkeypatch.setattr(other.context, "save", half_written)
    monkeypatch.setattr(first.context, "save", meanwhile)
    first.scheduler.close()
    text, done = Desk(demo_model, saved=tmp_path).answer(turn("Who are you?", SYSTEM), max_tokens=20)
    assert (text, done.cached_tokens) == (expected, done.prompt_tokens - 1)
    assert len(list(tmp_path.glob("*/*"))) == 2


def saved(model: LlamaModel, folder: Path) -> Path:
    """Save a prefix; return its file."""
    desk = Desk(model, saved=folder)
    desk.answer(turn("Who are you?", SYSTEM), max_tokens=1)
    desk.scheduler.close()
    (cache,) = folder.glob("*/*.cache")
    return cache


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
@pytest.mark.parametrize("suffix", [".tokens", ".cache"])
def test_a_pipe_in_the_folder_is_never_opened(demo_model: LlamaModel, tmp_path: Path, suffix: str) -> None:
    pipe = saved(demo_model, tmp_path).with_suffix(suffix)
    pipe.unlink()
    os.mkfifo(pipe)
    _, done = Desk(demo_model, saved=tmp_path).answer(turn("Who are you?", SYSTEM), max_tokens=1)
    assert done.cached_tokens == 0


def test_more_tokens_than_the_context_has_are_not_read(demo_model: LlamaModel, tmp_path: Path) -> None:
    with saved(demo_model, tmp_path).with_suffix(".tokens").open("r+b") as file:
        file.truncate(1 << 40)  # a hole, which takes no disk
    _, done = Desk(demo_model, saved=tmp_path).answer(turn("Who are you?", SYSTEM), max_tokens=1)
    assert done.cached_tokens == 0


def test_what_a_killed_engine_left_is_removed_later(demo_model: LlamaModel, tmp_path: Path) -> None:
    own = saved(demo_model, tmp_path).parent
    old, new = own / ".a.cache.old", own / ".a.cache.new"  # the new one may be another engine's work
    for partial in (old, new):
        partial.write_bytes(b"x")
    os.utime(old, times=(time.time() - 2 * LEFTOVER_AGE,) * 2)
    Desk(demo_model, saved=tmp_path).scheduler.close()
    assert (old.exists(), new.exists()) == (False, True)
