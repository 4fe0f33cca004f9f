"""What somebody types is never a control token; everything else is tokenized as in training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.engine.embedded.llama import LlamaModel
from hermes_cli.engine.embedded.vocabulary import Vocabulary
from hermes_cli.engine.request import encode
from hermes_cli.gguf.header import read_header
from hermes_cli.paths import asset
from hermes_cli.prompting.compose import PromptInput
from hermes_cli.prompting.families import CHATML
from hermes_cli.prompting.markers import MARK, TAGS, SpecialTexts, plain
from hermes_cli.prompting.messages import Message
from hermes_cli.prompting.render import OurFormat

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = [
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]
SPECIALS = SpecialTexts(CONTROL, ADDED)

# Pieces of control tokens, so that chance puts whole ones together, overlapping ones too.
SAID = st.lists(
    st.sampled_from([*CONTROL, *ADDED, "<|", "|>", "<", "im_end", "<|im_", "end|>", "a", " ", "\n", "é"])
).map("".join)


@pytest.fixture(scope="module")
def vocabulary(demo_model: LlamaModel) -> Vocabulary:
    return demo_model.vocabulary


def tokens(vocabulary: Vocabulary, text: str) -> list[int]:
    return vocabulary.tokenize(text, special=True)


def chat(said: str) -> str:
    return OurFormat(CHATML).render(PromptInput([Message("user", said)], specials=SPECIALS)).text


def spelled(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    return [
        text for text in (vocabulary.piece(one).decode(errors="replace") for one in ids) if text in {*CONTROL, *ADDED}
    ]


def test_the_demo_s_vocabulary_has_the_tokens_used_here(vocabulary: Vocabulary) -> None:
    header = read_header(asset("demo.gguf"), ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"))
    texts, kinds = header.metadata["tokenizer.ggml.tokens"], header.metadata["tokenizer.ggml.token_type"]
    assert isinstance(texts, tuple)
    assert isinstance(kinds, tuple)
    assert [text for text, kind in zip(texts, kinds, strict=True) if kind == 3] == CONTROL
    assert {text for text, kind in zip(texts, kinds, strict=True) if kind == 4} >= set(ADDED)
    for text in (*CONTROL, *ADDED):
        assert [vocabulary.piece(token).decode() for token in tokens(vocabulary, text)] == [text]
    assert all(len(tokens(vocabulary, text)) > 1 for text in ("<scratch_pad>", "</schema"))


@given(SAID)
def test_nothing_typed_is_a_control_token(vocabulary: Vocabulary, said: str) -> None:
    text = chat(said)
    pieces = SPECIALS.cut(text)
    assert "".join(pieces) == plain(text)
    ids = encode(pieces, lambda piece: tokens(vocabulary, piece))
    assert spelled(vocabulary, ids) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert b"".join(map(vocabulary.piece, ids)).decode() == plain(text)


@given(st.text(alphabet="ab \n<>|é", max_size=20))
def test_a_prompt_without_control_tokens_in_it_stays_whole(vocabulary: Vocabulary, said: str) -> None:
    text = chat(said)
    assert SPECIALS.cut(text) == (plain(text),)
    assert encode(SPECIALS.cut(text), lambda piece: tokens(vocabulary, piece)) == tokens(vocabulary, plain(text))


def test_a_token_half_of_the_template_and_half_of_the_user_is_cut() -> None:
    guard = SPECIALS.guard
    assert SPECIALS.cut("<|im_" + guard("end|>")) == ("<", "|im_end|>")
    assert SPECIALS.cut(guard("<|im_") + "end|>") == ("<", "|im_end|>")
    assert SPECIALS.cut("<|" + guard("im_end") + "|>") == ("<", "|im_end|>")
    assert SPECIALS.cut("<|im_" + guard("  end|> ").strip()) == ("<", "|im_end|>")
    assert SPECIALS.cut("<|im_end|>") == ("<|im_end|>",)
    assert SPECIALS.cut("") == ()


@given(SAID)
def test_marks_change_nothing_but_what_is_cut(said: str) -> None:
    for guarded in (SPECIALS.guard(said), SPECIALS.guard(said, keep_tags=True)):
        assert plain(guarded) == said
        assert "".join(SPECIALS.cut(guarded)) == said
    assert SPECIALS.guard_all({said: [said, 1, None]}).keys() == {SPECIALS.guard(said, alone=False)}


def test_a_mark_that_somebody_typed_is_none() -> None:
    assert plain(SPECIALS.guard(f"<|im_{MARK}end|>")) == "<|im_\ufffdend|>"
    assert SPECIALS.cut(SPECIALS.guard(f"{MARK}<|im_end|>")) == ("\ufffd<", "|im_end|>")


def test_tags_count_in_system_prompts_and_answers_but_not_in_what_users_and_tools_say() -> None:
    said = "<tool_call>"
    request = PromptInput(
        [Message("system", said), Message("user", said), Message("assistant", said), Message("user", "b")],
        specials=SPECIALS,
    )
    pieces = SPECIALS.cut(OurFormat(CHATML).render(request).text)
    assert pieces == (
        "<|im_start|>system\n<tool_call><|im_end|>\n<|im_start|>user\n<",
        (
            "tool_call><|im_end|>\n<|im_start|>assistant\n<tool_call><|im_end|>\n<|im_start|>user\nb<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
    )


def test_ordinary_text_among_the_added_tokens_is_left_alone() -> None:
    specials = SpecialTexts([], ["    ", "<table>", "<|user|>", "<think>"], template="{{ '<end_of_turn>' }}")
    text = "    <table><|user|><think>"
    assert specials.cut(specials.guard(text)) == ("    <table><", "|user|><", "think>")
    written = SpecialTexts([], ["<end_of_turn>"], template="{{ '<end_of_turn>' }}")
    assert written.cut(written.guard("<end_of_turn>")) == ("<", "end_of_turn>")
    assert SpecialTexts().cut(SpecialTexts().guard(text)) == (text,)


def _as_sentencepiece(text: str) -> list[int]:
    """Letters as ids, with the space that SentencePiece vocabularies put before whatever they are given."""
    return [ord(letter) for letter in " " + text]


def test_no_space_comes_in_where_a_prompt_is_cut() -> None:
    pieces = ("user says <", "|im_end|> and")
    assert "".join(map(chr, encode(pieces, _as_sentencepiece))) == " user says <|im_end|> and"
    assert encode((), _as_sentencepiece) == []


def test_every_tag_has_its_end() -> None:
    assert {tag.replace("/", "") for tag in TAGS} == {tag for tag in TAGS if "/" not in tag}
