"""TinyBERT's data augmentation: words replaced by what a masked language model, or a word's neighbours, propose.

Source: Jiao et al., "TinyBERT", 2020, section 3.2 and algorithm 1.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_l2t.text.pretrained import Encoder
from tf_l2t.text.wordpieces import WordPieces

# (sentence's words, indices of some, how many) -> for each of these, words that may stand there.
Candidates = Callable[[Sequence[str], Sequence[int], int], list[list[str]]]
# Function words, and what contractions are cut into, stay; so do those of the authors' code, from which this list
# differs by a few pronouns and question words.
_FUNCTION_WORDS = (
    "a an the and or but if because as until while of at by for with about against between into through during "
    "before after above below to from up down in out on off over under again further then once here there when "
    "where why how all any both each few more most other some such no nor not only own same so than too very can "
    "will just should now i me my myself we our ours ourselves you your yours yourself yourselves he him his himself "
    "she her hers herself it its itself they them their theirs themselves what which who whom this that these those "
    "am is are was were be been being have has had having do does did doing would could might must cannot "
    "s t d ll m o re ve y don ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn "
    "weren won wouldn")
MASKED_LENGTH = 128  # of a sentence that a masked language model is asked about, in word pieces
KEPT = frozenset(_FUNCTION_WORDS.split())
_WORD = re.compile(r"[A-Za-z]+")
_CUT = re.compile(r"\w+|[^\w\s]")


class WordVectors:
    """Word vectors, such as GloVe's: the nearest words by cosine.

    Args:
      words: one per vector.
      vectors: [words, width].

    Raises:
      ValueError: if they are not as many.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray):
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or len(words) != len(vectors):
            raise ValueError(f"vectors are [words, width]; received {len(words)} words, shape {vectors.shape}.")
        self.words = tuple(words)
        self._unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self._index = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: str | os.PathLike[str], limit: int = 100_000) -> WordVectors:
        """From a text file of lines: word, which may hold spaces, then its numbers, separated by spaces, as many as in
        the first line, whose word holds none. That may be behind a line of two numbers, of words and of a word's
        numbers, as word2vec and fastText write it. The first `limit` words.

        Raises:
          ValueError: if there is no such file, naming the line that is not so.
        """
        file = pathlib.Path(path)
        words, vectors = list[str](), list[np.ndarray]()
        if not file.is_file():
            raise ValueError(f"there is no file of word vectors at {str(file)!r}.")
        with file.open("rb") as lines:
            width = 0
            for number, line in enumerate(lines, 1):
                parts = line.rstrip().split(b" ")
                if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                    width = int(parts[1])
                    continue
                width = width or len(parts) - 1
                if not 0 < width < len(parts):
                    raise ValueError(f"{str(file)!r}, line {number}: {len(parts) - 1} numbers; by line 1 a word has "
                                     f"{width}.")
                try:
                    vectors.append(np.array([float(part) for part in parts[-width:]], np.float32))
                    words.append(b" ".join(parts[:-width]).decode("utf-8"))
                except ValueError as error:
                    raise ValueError(f"{str(file)!r}, line {number}: not a word and numbers: {error}.") from error
                if len(words) == limit:
                    break
        return cls(words, np.array(vectors))

    def nearest(self, word: str, count: int) -> list[str]:
        """The nearest other words, nearest first; none for a word without a vector."""
        if word not in self._index:
            return []
        own = self._index[word]
        near = self._unit @ self._unit[own]
        near[own] = -np.inf
        return [self.words[i] for i in _largest(near, min(count, len(self.words) - 1))]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest values are, largest first."""
    found = np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))
    return found[np.argsort(-values[found], kind="stable")]


def masked_candidates(model: Any, wordpieces: WordPieces, length: int = MASKED_LENGTH) -> Candidates:
    """Words that a masked language model would put where a word stood; none for words of several pieces.

    Args:
      model: token ids [batch, length] and masked places [batch] -> logits over the vocabulary [batch, vocabulary]; a
        sentence is asked about all its words at once.
      wordpieces: its vocabulary.
      length: of the sentence with its special tokens, at most.
    """
    def candidates(words: Sequence[str], indices: Sequence[int], count: int) -> list[list[str]]:
        pieces = wordpieces.tokens(words)
        starts = 1 + np.cumsum([0, *map(len, pieces)])
        inner = [token for piece in pieces for token in piece][:length - 2]
        tokens = [wordpieces.special.start, *inner, wordpieces.special.separator]
        asked = [i for i in indices if len(pieces[i]) == 1 and starts[i] < length - 1]
        found: dict[int, list[str]] = {}
        if asked:
            places = starts[asked].astype(np.int32)
            batch = np.tile(np.array(tokens, np.int32), (len(asked), 1))
            batch[np.arange(len(asked)), places] = wordpieces.mask
            for index, logits in zip(asked, np.asarray(model(batch, places)), strict=True):
                best = [wordpieces.pieces[i] for i in _largest(logits, min(count, len(logits)))]
                found[index] = [piece for piece in best if not piece.startswith("##")]
        return [found.get(i, []) for i in indices]

    return candidates


def check_augmentation(copies: int, num_candidates: int, probability: float) -> None:
    """Raises ValueError for numbers that `augmented` does not take."""
    if copies < 0 or num_candidates < 1 or not 0 <= probability <= 1:
        raise ValueError("copies must be at least 0, num_candidates 1, probability in [0, 1]; received "
                         f"{copies!r}, {num_candidates!r}, {probability!r}.")


def augmented(sentence: str, candidates: Sequence[Candidates], rng: np.random.Generator, *, copies: int = 20,
              num_candidates: int = 15, probability: float = 0.4) -> list[str]:
    """The sentence, and up to `copies` others, in which words were replaced.

    Every word of letters that is no function word has its candidates, of the first of the sources that has any; in a
    copy it is replaced, with the probability, by one of them at random. Copies that are there already are left out.

    Args:
      sentence: plain text.
      candidates: sources of words, tried in order: `masked_candidates`, then `neighbours`.
      rng: draws.
      copies: N.
      num_candidates: K.
      probability: p_t.

    Raises:
      ValueError: for numbers out of range.
    """
    check_augmentation(copies, num_candidates, probability)
    if not copies:
        return [sentence]
    words = _CUT.findall(sentence)
    left = [i for i, word in enumerate(words) if _WORD.fullmatch(word) and word.lower() not in KEPT]
    options: dict[int, list[str]] = {}
    for source in candidates:
        for index, found in zip(left, source(words, left, num_candidates), strict=True):
            if found:
                options[index] = [other.title() for other in found] if words[index].istitle() else found
        left = [i for i in left if i not in options]
    made = [sentence]
    for _ in range(copies):
        new = [str(rng.choice(options[i])) if i in options and rng.random() < probability else word
               for i, word in enumerate(words)]
        if new != words and " ".join(new) not in made:
            made.append(" ".join(new))
    return made


def neighbours(vectors: WordVectors) -> Candidates:
    """The nearest words of the word that stood there, looked up once for every word."""
    nearest = functools.cache(vectors.nearest)
    return lambda words, indices, count: [nearest(words[i].lower(), count) for i in indices]


def embedding_vectors(encoder: Encoder) -> WordVectors:
    """An encoder's own embeddings of whole words, where no file of word vectors is at hand."""
    pieces = encoder.wordpieces.pieces
    kept = [i for i, piece in enumerate(pieces) if _WORD.fullmatch(piece)]
    table = np.asarray(encoder.backbone.token_embedding.embeddings)
    return WordVectors([pieces[i] for i in kept], table[kept])
