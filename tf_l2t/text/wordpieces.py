"""Sentences to word-piece ids in BERT's layout."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from tf_l2t.students import SpecialTokens
from tf_l2t.text.tasks import Examples

NAMES = {"pad": "[PAD]", "start": "[CLS]", "separator": "[SEP]", "mask": "[MASK]", "unknown": "[UNK]"}


class WordPieces:
    """A BERT vocabulary.

    Args:
      pieces: one per id.
      lowercase: whether text is put in lower case before it is cut.
      strip_accents: whether its accents are dropped; None for as `lowercase`, which is what BERT's vocabularies are of.

    Attributes:
      pieces, lowercase, strip_accents: as given.
      special: the ids that networks need.
      tokenizer: a `keras_nlp.tokenizers.BertTokenizer` of the same vocabulary.

    Raises:
      ValueError: if a special piece is missing, a piece is there twice, or has a character that no piece can have.
    """

    def __init__(self, pieces: Sequence[str], lowercase: bool = True, strip_accents: bool | None = None):
        import keras_nlp

        self.pieces, self.lowercase = tuple(pieces), lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        ids = {piece: number for number, piece in enumerate(self.pieces)}
        missing = [piece for piece in NAMES.values() if piece not in ids]
        if missing or len(ids) < len(self.pieces):
            raise ValueError(f"a vocabulary of word pieces needs {list(NAMES.values())}, and every piece once; "
                             f"missing: {missing}, {len(self.pieces) - len(ids)} there twice.")
        self.special = SpecialTokens(*(ids[NAMES[name]] for name in SpecialTokens._fields))
        self.mask = ids[NAMES["mask"]]
        try:
            self.tokenizer = keras_nlp.tokenizers.BertTokenizer(list(self.pieces), lowercase=lowercase,
                                                                 strip_accents=self.strip_accents)
        except RuntimeError as error:  # of the tokenizer's tables, which cannot hold the character 0
            raise ValueError(f"these {len(self.pieces)} word pieces are no vocabulary: {error}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str], lowercase: bool = True, strip_accents: bool | None = None
             ) -> WordPieces:
        """From vocab.txt: one piece a line.

        Raises:
          ValueError: if there is no such file, or it is no vocabulary.
        """
        file = pathlib.Path(path)
        if not file.is_file():
            raise ValueError(f"there is no vocabulary at {str(file)!r}; name a file of one word piece a line.")
        try:
            pieces = file.read_text(encoding="utf-8").split("\n")
            return cls(pieces[:-1] if pieces[-1] == "" else pieces, lowercase, strip_accents)
        except ValueError as error:  # UnicodeDecodeError is one
            raise ValueError(f"{str(file)!r}: {error}") from error

    @property
    def size(self) -> int:
        """The number of pieces, special ones among them."""
        return len(self.pieces)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the pieces and of how text is split into them."""
        return hashlib.sha256("\n".join((*self.pieces, str((self.lowercase, self.strip_accents)))).encode()).hexdigest()

    def encode(self, examples: Examples, length: int) -> np.ndarray:
        """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], padded: int32 [examples, length]. What is too long is
        cut at its end; of a pair a word piece of each sentence in turn has its place.

        Raises:
          ValueError: for a length that leaves no place for a word piece of each sentence.
        """
        sentences = [examples.first] if examples.second is None else [examples.first, examples.second]
        least = 2 * len(sentences) + 1
        if length < least:
            raise ValueError(f"length must be at least {least}; received {length!r}.")
        encoded = np.full((examples.size, length), self.special.pad, np.int32)
        for row, parts in zip(encoded, zip(*map(self.tokens, sentences), strict=True), strict=True):
            free = length - 1 - len(parts)
            if len(parts) == 2:
                first = min(len(parts[0]), max(free - len(parts[1]), (free + 1) // 2))
                parts = parts[0][:first], parts[1][:free - first]
            packed = [self.special.start]
            for part in parts:
                packed += [*part[:free], self.special.separator]
            row[:len(packed)] = packed
        return encoded

    def tokens(self, sentences: Sequence[str]) -> list[list[int]]:
        """The word pieces of every sentence."""
        found = self.tokenizer(list(sentences))
        return [[int(token) for token in row] for row in (found if isinstance(found, list) else found.to_list())]
