"""What each token stands for, asked of the vocabulary once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hermes_cli.engine.vocabulary import Vocabulary


class Piece(NamedTuple):
    """The bytes of a token, and whether it ends an answer."""

    bytes: bytes
    ends: bool


class Pieces(dict[int, Piece]):
    """Token ids to pieces, filled as they are needed: a call into C for every token of every step would add up."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, token: int) -> Piece:
        piece = self[token] = Piece(self._vocabulary.piece(token), self._vocabulary.ends_generation(token))
        return piece
