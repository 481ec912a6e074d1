"""A joint subword vocabulary: BPE, trained by SentencePiece on the train side only and stored as one file."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

PAD = 0
"""The id of padding."""
BOS = 1
"""The id that a target begins with."""
EOS = 2
"""The id that a sentence ends with."""
UNK = 3
"""The id of what is no subword."""
SPECIAL_PIECES = ("<pad>", "<s>", "</s>", "<unk>")

# SentencePiece leaves out longer lines without a word, and with them their characters.
_LONGEST_LINE = 1 << 24
# What its two errors about the size say.
_TOO_LARGE = re.compile(r"Vocabulary size too high \(\d+\)\. Please set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")


class Subwords:
    """Text to subword ids and back.

    The ids 0 … 3 are pad, begin and end of sentence, and unknown (`PAD`, `BOS`, `EOS`, `UNK`); every character of the
    lines that it was trained on has a piece. Text is not normalised, so `decode` gives back what `encode` was given,
    with single spaces between words, and a space for every "▁"; a vocabulary trained with `lower` makes lower case of
    all.
    """

    def __init__(self, proto: bytes) -> None:
        """Takes a serialized SentencePiece model.

        Raises:
          ValueError: if it is none, or its special ids are other ones.
        """
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            # An empty model is accepted there, and fails at the first use.
            loaded = bool(proto) and self._processor.LoadFromSerializedProto(proto)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"these {len(proto)} bytes are no SentencePiece model: {error}") from error
        if not loaded or self._processor.vocab_size() == 0:
            raise ValueError(f"these {len(proto)} bytes are no SentencePiece model.")
        received = {"pad": self._processor.pad_id(), "bos": self._processor.bos_id(),
                    "eos": self._processor.eos_id(), "unk": self._processor.unk_id()}
        expected = {"pad": PAD, "bos": BOS, "eos": EOS, "unk": UNK}
        if received != expected:
            raise ValueError(f"the special ids of the SentencePiece model must be {expected}; received {received}. "
                             "Train one with Subwords.train.")
        self._proto = bytes(proto)

    @classmethod
    def train(cls, lines: Iterable[str], size: int = 25_000, lower: bool = False) -> Subwords:
        """A vocabulary of `size` pieces, the same for the same lines.

        Args:
          lines: sentences of the train side, of both languages for a joint vocabulary.
          size: the number of pieces, the four special ones included.
          lower: make lower case of all text; the model that is stored does it by itself.

        Raises:
          ValueError: for no lines, a line with a line break, a NUL or a "▅", or a size that these lines cannot fill or
            that is too small for their characters; the message says which size is possible.
        """
        import sentencepiece

        if isinstance(lines, str):
            raise ValueError("lines must be several lines of text; received one string. Pass a list of lines.")
        if size <= len(SPECIAL_PIECES):
            raise ValueError(f"size must be above {len(SPECIAL_PIECES)}, that of the special pieces; received {size}.")
        model = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {"normalization_rule_name": "identity"}
            if lower:
                options = {"normalization_rule_tsv": _lower_rules(pathlib.Path(folder) / "lower.tsv")}
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=_checked(lines), model_writer=model, vocab_size=size, model_type="bpe",
                    character_coverage=1.0, byte_fallback=False, pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK,
                    pad_piece=SPECIAL_PIECES[PAD], bos_piece=SPECIAL_PIECES[BOS], eos_piece=SPECIAL_PIECES[EOS],
                    unk_piece=SPECIAL_PIECES[UNK], num_threads=1, input_sentence_size=0,
                    shuffle_input_sentence=False, max_sentence_length=_LONGEST_LINE, minloglevel=2, **options)
            except RuntimeError as error:
                raise _size_error(size, error) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Subwords:
        """Reads what `save` wrote.

        Raises:
          ValueError: naming the file, if there is none, it is no SentencePiece model, or its special ids are other
            ones.
        """
        try:
            return cls(pathlib.Path(path).read_bytes())
        except FileNotFoundError as error:
            raise ValueError(f"there is no file {str(path)!r}.") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the one file that holds all, by convention called NAME.model."""
        pathlib.Path(path).write_bytes(self._proto)

    @property
    def proto(self) -> bytes:
        """The serialized SentencePiece model."""
        return self._proto

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `proto`."""
        return hashlib.sha256(self._proto).hexdigest()

    @property
    def size(self) -> int:
        """The number of pieces V; ids are 0 … V − 1."""
        return self._processor.vocab_size()

    @property
    def lower(self) -> bool:
        """Whether it makes lower case of all text."""
        return self._processor.normalize("A").endswith("a")

    @functools.cached_property
    def pieces(self) -> tuple[str, ...]:
        """All pieces, by id; "▁" stands for a space."""
        return tuple(self._processor.id_to_piece(list(range(self.size))))

    def encode(self, line: str) -> list[int]:
        """The ids of one line, without special ones at its ends."""
        return self._processor.encode(line)

    def encode_lines(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The ids of every line, each int32 [subwords]."""
        return [np.array(ids, np.int32) for ids in self._processor.encode(list(lines))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` up to the first end of sentence; pads and begins of sentence are dropped.

        Raises:
          ValueError: for an id outside 0 … V − 1.
        """
        kept = []
        for i in map(int, ids):
            if i == EOS:
                break
            if not 0 <= i < self.size:
                raise ValueError(f"ids must be in 0 … {self.size - 1}; received {i}.")
            if i not in (PAD, BOS):
                kept.append(i)
        return self._processor.decode(kept) if kept else ""

    def keras_tokenizer(self, **kwargs: Any) -> Any:
        """A `keras_nlp.tokenizers.SentencePieceTokenizer` of the same vocabulary, for graphs and saved models.

        Args:
          **kwargs: its own arguments, such as `sequence_length` and `add_eos`.
        """
        import keras_nlp

        return keras_nlp.tokenizers.SentencePieceTokenizer(proto=self._proto, **kwargs)


# NUL, its end of text; ▅, which stands for an unknown character there.
_TAKEN = frozenset("\0\u2585")


def _checked(lines: Iterable[str]) -> Iterable[str]:
    empty = True
    for number, line in enumerate(lines, 1):
        check_line(line, f"line {number}")
        empty = empty and not line.strip()
        yield line
    if empty:
        raise ValueError("there is no line to train subwords on.")


def check_line(line: str, where: str) -> None:
    """Raises ValueError for a line on which subwords cannot be trained, after saying `where` it stands."""
    if "\n" in line:
        raise ValueError(f"{where} has a line break in it: {line[:60]!r}. Split it first.")
    if taken := _TAKEN & set(line):
        raise ValueError(f"{where} holds {sorted(taken)}, which SentencePiece keeps for itself, so that it would pass "
                         f"over the line. Take them out of {line[:60]!r}.")


def _lower_rules(path: pathlib.Path) -> str:
    """Writes Python's lower case of every character as SentencePiece rules, which the model then holds."""
    pairs = ((chr(c), chr(c).lower()) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    path.write_text("".join(f"{ord(upper):X}\t{' '.join(f'{ord(c):X}' for c in lower)}\n"
                            for upper, lower in pairs if upper != lower))
    return str(path)


def _size_error(size: int, error: RuntimeError) -> ValueError:
    if found := _TOO_LARGE.search(str(error)):
        return ValueError(f"these lines have too few pairs of pieces for size={size}; at most {found[1]} is possible.")
    if found := _TOO_SMALL.search(str(error)):
        return ValueError(f"size={size} is too small: these lines' characters and the special pieces alone need "
                          f"{found[1]}, so give at least that.")
    return ValueError(f"SentencePiece could not train {size} subwords: {error}")
