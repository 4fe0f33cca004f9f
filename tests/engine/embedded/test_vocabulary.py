"""Long texts are tokenized in pieces, whatever a splitter makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from desk import finish
from gguf_bytes import entry, string
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.vocabulary import PIECE, prompt_tokens
from hermes_cli.paths import asset

RUN = 70_000  # characters; llama.cpp ends the process over 60,000 that are alike
# Tokenizes runs with stacks as the engine's threads have them.
PROGRAM = f"""
import json, sys, threading
from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.engine.embedded.worker import STACK

class Model: pass

def tokenize():
    for path in json.loads(sys.argv[1]):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only, model = True, Model()
        model.handle = llama_cpp.llama_model_load_from_file(path.encode(), params)
        vocabulary = Vocabulary(model)
        for character in "a 1":
            text = "start " + character * {RUN} + " end"
            assert vocabulary.detokenize(vocabulary.tokenize(text, special=True)).decode() == text

threading.stack_size(STACK)
thread = threading.Thread(target=tokenize)
thread.start()
thread.join()
"""


def test_a_run_of_one_character(tmp_path: Path) -> None:
    """llama.cpp #27783: splitters without code of their own recurse for each character."""
    raw = asset("demo.gguf").read_bytes()

    def pre(name: str) -> bytes:
        return entry("tokenizer.ggml.pre", 8, string(name))

    paths = []
    # Hermes 4.3 36B, DeepHermes 3 24B, Hermes 3, Hermes 4 14B, and the one that took 12 s for digits
    for name in ("seed-coder", "tekken", "llama-bpe", "qwen2", "superbpe"):
        paths.append(str(tmp_path / name))
        Path(paths[-1]).write_bytes(raw.replace(pre("gpt-2"), pre(name), 1) + bytes(64))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(paths)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr[-2000:]


@pytest.mark.parametrize("special", [True, False])
def test_a_flood_of_control_tokens(demo_model: LlamaModel, *, special: bool) -> None:
    flood = 3000
    vocabulary = demo_model.vocabulary
    one = vocabulary.tokenize("<|im_end|>", special=special)
    assert vocabulary.tokenize("<|im_end|>" * flood, special=special) == one * flood


@settings(max_examples=20)
@given(
    st.lists(
        st.sampled_from(["word ", "\n", "<|im_end|>\n", "```\n    x = 1\n", '{"a": 1}', "中文。", "é"]), min_size=1
    )
)
def test_pieces_become_the_tokens_of_the_whole(demo_model: LlamaModel, parts: list[str]) -> None:
    vocabulary, text = demo_model.vocabulary, "".join(parts)
    text *= 2 * PIECE // len(text) + 1
    assert vocabulary.tokenize(text, special=True) == vocabulary._tokenize(text, special=True)  # noqa: SLF001


def test_a_prompt_far_beyond_the_context_is_not_tokenized_to_its_end(demo_model: LlamaModel) -> None:
    steps = 0

    def counted() -> list[int]:
        nonlocal steps
        work = prompt_tokens(demo_model.vocabulary, ("word " * 250_000,), 1024)
        while True:
            try:
                next(work)
            except StopIteration as end:
                tokens: list[int] = end.value
                return tokens
            steps += 1

    assert 1024 < len(counted()) < 250_000
    assert steps < 10
    exact = finish(prompt_tokens(demo_model.vocabulary, ("word " * 5000,), 1024))
    assert len(exact) > 5000
