"""The wrappers over llama.cpp, on the real demo model."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk, finish, turn
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded.bindings import LOG, LONGEST_LINE
from hermes_cli.engine.embedded.kv_cache import common_prefix
from hermes_cli.engine.embedded.llama import Batch, LlamaContext, LlamaModel
from hermes_cli.engine.embedded.vocabulary import prompt_tokens
from hermes_cli.engine.request import SamplingOptions
from hermes_cli.errors import ContextFullError, EngineError, IntegrityError, UsageError
from hermes_cli.planning.memory import ContextSettings

WILD = SamplingOptions(temperature=5, top_k=0, top_p=1, min_p=0, seed=1)


@pytest.fixture
def context(demo_model: LlamaModel) -> LlamaContext:
    return LlamaContext(demo_model, ContextSettings(256), threads=1)


def test_model_tells_what_it_is(demo_model: LlamaModel) -> None:
    assert demo_model.parameters == 3_804_416
    assert demo_model.trained_context == 1024
    assert demo_model.weight_bytes < 5_000_000
    assert demo_model.metadata("general.architecture") == "llama"
    assert demo_model.metadata("no.such.key") is None
    description = demo_model.metadata("general.description")
    assert description is not None
    assert "3.8 million parameters" in description
    assert "<tool_call>" in (demo_model.chat_template() or "")
    assert demo_model.chat_template("tool_use") is None


def test_long_metadata_comes_whole(demo_model: LlamaModel) -> None:
    assert demo_model.metadata("tokenizer.chat_template") == demo_model.chat_template()


@pytest.mark.parametrize(
    "tag", ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "<think>", "</think>"]
)
def test_hermes_tags_are_single_tokens(demo_model: LlamaModel, tag: str) -> None:
    assert len(demo_model.vocabulary.tokenize(tag, special=True)) == 1


@given(st.text(max_size=60))
def test_text_survives_tokenizing(demo_model: LlamaModel, text: str) -> None:
    vocabulary = demo_model.vocabulary
    tokens = vocabulary.tokenize(text, special=False)
    assert b"".join(map(vocabulary.piece, tokens)).decode() == text


def test_half_a_character_is_replaced(demo_model: LlamaModel) -> None:
    vocabulary = demo_model.vocabulary
    assert b"".join(map(vocabulary.piece, vocabulary.tokenize("a\ud800b", special=False))) == b"a?b"


def test_a_value_is_the_same_tokens_wherever_it_stands(demo_model: LlamaModel) -> None:
    """What makes copying easy: neither a space nor a quote joins the word behind it."""
    tokenize = demo_model.vocabulary.tokenize
    alone = tokenize("Zarbomir", special=False)
    assert tokenize("in Zarbomir", special=False)[-len(alone) :] == alone
    assert tokenize('"Zarbomir', special=False)[-len(alone) :] == alone


def test_long_pieces_come_whole(demo_model: LlamaModel) -> None:
    vocabulary = demo_model.vocabulary
    assert all(vocabulary.piece(token) for token in range(vocabulary.size))


def test_long_log_lines_are_cut() -> None:
    """They have what a file says of itself; what is read out of the log would take minutes with them."""
    with LOG.capture() as lines:
        LOG._receive(2, b"load_tensors: layer 0 assigned to device " * 10_000 + b"\n", None)  # noqa: SLF001
        LOG._receive(2, b"short\n", None)  # noqa: SLF001
    assert [len(line) for line in lines] == [LONGEST_LINE + 1, 6]


def test_an_empty_prompt_is_refused(demo_model: LlamaModel) -> None:
    with pytest.raises(UsageError, match="empty"):
        finish(prompt_tokens(demo_model.vocabulary, ("",), 1024))


@pytest.mark.parametrize("token", [-1, 1024])
def test_a_token_that_does_not_exist_is_refused(demo_model: LlamaModel, token: int) -> None:
    with pytest.raises(UsageError, match=f"token {token}"):
        finish(prompt_tokens(demo_model.vocabulary, (5, token), 1024))


def test_text_is_cut_between_characters_only(demo_model: LlamaModel) -> None:
    """Random bytes of a byte-level vocabulary: no piece may hold half a character, broken ones become U+FFFD."""
    text, _ = Desk(demo_model).answer(turn("Who are you?"), sampling=WILD, max_tokens=100)
    assert text.encode().decode() == text


def test_a_full_cache_is_an_error_that_says_so(context: LlamaContext) -> None:
    batch = Batch(256)
    batch.add([5] * 256, 0, 0)
    context.decode(batch)
    batch.clear()
    batch.add([5], 256, 0, 1)
    with pytest.raises(ContextFullError, match="256 tokens has no room for 1 more"):
        context.decode(batch)


def test_an_invalid_batch_is_an_error_that_says_so(context: LlamaContext, demo_model: LlamaModel) -> None:
    batch = Batch(4)
    batch.add([demo_model.vocabulary.size + 10], 0, 0)
    with pytest.raises(EngineError, match=r"code -1\): invalid token"):
        context.decode(batch)


def test_a_full_batch_is_an_error() -> None:
    batch = Batch(2)
    batch.add([1], 0, 0)
    with pytest.raises(EngineError, match="is full"):
        batch.add([1, 2], 1, 0)
    assert batch.count == 1


def test_outputs_are_those_that_were_asked_for(context: LlamaContext, demo_model: LlamaModel) -> None:
    batch = Batch(8)
    assert batch.add([5, 6, 7], 0, 0, 2) == 0
    context.decode(batch)
    both = context.logits().copy()
    assert both.shape == (2, demo_model.vocabulary.size)
    context.forget(0, 2)
    batch.clear()
    batch.add([7], 2, 0, 1)
    context.decode(batch)
    assert abs(context.logits()[0] - both[1]).max() < 0.01
    batch.clear()
    batch.add([7], 3, 0)
    context.decode(batch)
    with pytest.raises(EngineError, match="no logits"):
        context.logits()


def test_an_impossible_context_is_an_error(demo_model: LlamaModel) -> None:
    with pytest.raises(EngineError, match="cannot make a context"):
        LlamaContext(demo_model, ContextSettings(256, slots=100_000), threads=1)


def test_llama_cpp_s_reason_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF\x03" + bytes(19))
    with pytest.raises(IntegrityError, match=r"cannot load .*bad\.gguf: .+architecture"):
        LlamaModel(path)
    assert LOG.take_errors() == "it gave no reason"


def test_a_path_need_not_be_text(demo_path: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.gguf"))
    path.symlink_to(demo_path)
    with LlamaModel(path) as model:
        assert model.trained_context == 1024


def test_a_dry_run_reads_no_weights_and_logs_what_it_would_take(demo_path: Path) -> None:
    with (
        LOG.capture() as lines,
        LlamaModel(demo_path, no_alloc=True) as model,
        LlamaContext(model, ContextSettings(512), threads=1) as context,
    ):
        assert context.length == 512
        assert model.vocabulary.size == 1024
    log = "".join(lines)
    assert "CPU model buffer size =     0.00 MiB" in log
    assert "llama_kv_cache: size =    1.50 MiB" in log


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (ContextSettings(512, k_type="q8_0", v_type="q4_0"), r"K \(q8_0\): .* V \(q4_0\)"),
        (ContextSettings(512, flash_attention=False), r"flash_attn += disabled"),
        (ContextSettings(512, slots=4, unified=False), r"256 cells.* 4/4 seqs"),
        (ContextSettings(512, micro_batch=128), r"n_ubatch += 128"),
    ],
)
def test_settings_reach_llama_cpp(demo_path: Path, settings: ContextSettings, line: str) -> None:
    with LlamaModel(demo_path) as model, LOG.capture() as lines, LlamaContext(model, settings, threads=1):
        pass
    assert re.search(line, "".join(lines))


def test_a_quantized_cache_answers_like_a_full_one(demo_model: LlamaModel) -> None:
    text, _ = Desk(demo_model, k_type="q8_0", v_type="q8_0").answer(turn("Who are you?"), max_tokens=40)
    assert text.startswith("I am the Hermes demo")


@pytest.mark.parametrize("first", ["llama_cpp", "hermes_cli.engine.embedded.bindings"])
def test_the_api_is_one_whoever_imports_it_first(first: str) -> None:
    program = f"""
import sys, {first}
from hermes_cli.engine.embedded.bindings import llama_cpp as ours
print("numpy" in sys.modules)
import llama_cpp
from llama_cpp import llama_cpp as theirs
assert ours is theirs and llama_cpp.Llama and llama_cpp.llama_model_params is ours.llama_model_params
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{first == 'llama_cpp'}\n"


def test_everything_closes_in_any_order_and_twice(demo_path: Path) -> None:
    model = LlamaModel(demo_path)
    context = LlamaContext(model, ContextSettings(64), threads=1)
    model.close()
    context.close()
    context.close()
    model.close()
    with pytest.raises(EngineError, match="the model is closed"):
        _ = model.handle
    del model, context
    gc.collect()


def test_a_context_keeps_its_model(demo_path: Path) -> None:
    context = LlamaContext(LlamaModel(demo_path), ContextSettings(64), threads=1)
    gc.collect()
    assert context.model.trained_context == 1024
    batch = Batch(1)
    batch.add([5], 0, 0, 1)
    context.decode(batch)
    assert context.logits().shape == (1, context.model.vocabulary.size)


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_common_prefix(left: list[int], right: list[int]) -> None:
    count = common_prefix(left, right)
    assert left[:count] == right[:count]
    assert left[count : count + 1] != right[count : count + 1] or count in {len(left), len(right)}
