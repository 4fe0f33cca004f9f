"""The demo's tokenizer: byte-level BPE of 1,024 tokens in GPT-2's scheme, with the ChatML and Hermes tags as tokens.

Merges are learned on text cut finer than it is cut when tokenizing: a space never joins the letters behind it and
digits stay single. So "Tokyo" is the same tokens after a space, after a quote and at the start of a line, and copying
a value from the user's sentence into JSON is copying tokens.
"""

import random
from collections.abc import Iterator

from dialogues import dialogue
from rendering import render
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from words import Style

VOCABULARY_SIZE = 1024
CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAG_TOKENS = [
    f"<{slash}{tag}>" for tag in ("tools", "tool_call", "tool_response", "schema", "think") for slash in ("", "/")
]
END_OF_TEXT, START_OF_TURN, END_OF_TURN = 0, 1, 2

LEARNING_CUTS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s"


def _texts(count: int, seed: int) -> Iterator[str]:
    for index in range(count):
        yield render(dialogue(random.Random(f"tokenizer {seed} {index}"), Style(long_words=True)))


def train_tokenizer(*, dialogues: int = 20_000, seed: int = 1) -> Tokenizer:
    """Learn the merges from `dialogues` synthetic dialogues."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LEARNING_CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    specials = CONTROL_TOKENS + TAG_TOKENS
    tokenizer.add_special_tokens(specials)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_texts(dialogues, seed), trainer)
    # What llama.cpp calls pre-tokenizer "gpt-2"; no merge crosses a learning cut, so the tokens stay the same.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return tokenizer
