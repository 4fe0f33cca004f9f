"""Dialogues packed whole into fixed windows of tokens, with what is to be learned marked."""

import random
from collections.abc import Iterator

import torch
from dialogues import Dialogue, dialogue
from rendering import pieces
from tokenizer import END_OF_TEXT
from tokenizers import Tokenizer
from torch import Tensor
from words import Style

Encoded = tuple[list[int], list[bool]]


def encode(tokenizer: Tokenizer, conversation: Dialogue) -> Encoded:
    """Token ids of a dialogue and, for each, whether the model is to learn it."""
    ids: list[int] = []
    wanted: list[bool] = []
    for text, learn in pieces(conversation):
        part = tokenizer.encode(text, add_special_tokens=False).ids
        ids += part
        wanted += [learn] * len(part)
    return ids, wanted


def _stream(tokenizer: Tokenizer, seed: str, longest: int, style: Style) -> Iterator[Encoded]:
    number = 0
    while True:
        encoded = encode(tokenizer, dialogue(random.Random(f"{seed} {number}"), style))
        number += 1
        if len(encoded[0]) <= longest:
            yield encoded


def windows(
    tokenizer: Tokenizer, *, seed: str, length: int, batch: int, style: Style, waiting: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of packed windows.

    Each window takes, from a small waiting room, the longest dialogue that still fits, again and again; what stays
    empty is end-of-text. Yields tokens (batch, length) int64 and wanted (batch, length) bool.
    """
    stream = _stream(tokenizer, seed, length, style)
    room = [next(stream) for _ in range(waiting)]
    while True:
        tokens = torch.full((batch, length), END_OF_TEXT, dtype=torch.int64)
        wanted = torch.zeros((batch, length), dtype=torch.bool)
        for row in range(batch):
            at = 0
            # The oldest goes first so that none waits for ever; the rest by size.
            while fitting := [i for i, (ids, _) in enumerate(room) if at + len(ids) <= length]:
                index = max(fitting, key=lambda i: len(room[i][0])) if at else 0
                ids, learn = room.pop(index)
                room.append(next(stream))
                tokens[row, at : at + len(ids)] = torch.tensor(ids)
                wanted[row, at : at + len(ids)] = torch.tensor(learn)
                at += len(ids) + 1
        yield tokens, wanted
