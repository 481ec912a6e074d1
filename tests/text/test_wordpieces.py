"""Word pieces in BERT's layout, and what networks derive from them."""

import numpy as np
import pytest

from tests.text.tiny_encoder import PIECES
from tf_l2t.students import SpecialTokens
from tf_l2t.students.text_inputs import MaxOverTime, Segments, Sentences
from tf_l2t.text import Examples, WordPieces

ID = {piece: i for i, piece in enumerate(PIECES)}


def encode(first, second=None, length=8):
    labels = np.zeros(len(first), np.int32)
    tokens = WordPieces(PIECES).encode(Examples(tuple(first), second and tuple(second), labels), length)
    return [[PIECES[i] for i in row if i != 0] for row in tokens]


def test_one_sentence():
    assert encode(["Good film", "CAB!", "the film is very very bad", "groß"]) == [
        ["[CLS]", "good", "film", "[SEP]"], ["[CLS]", "c", "##a", "##b", "!", "[SEP]"],
        ["[CLS]", "the", "film", "is", "very", "very", "bad", "[SEP]"], ["[CLS]", "[UNK]", "[SEP]"]]
    assert encode(["the film is very very bad"], length=4) == [["[CLS]", "the", "film", "[SEP]"]]


def test_accents():
    """Dropped, as BERT's vocabularies without case have no letters with accents; kept, the word is unknown."""
    assert encode(["Café naïF"], length=10) == [["[CLS]", "c", "##a", "##f", "##e", "n", "##a", "##i", "##f", "[SEP]"]]
    kept = WordPieces(PIECES, strip_accents=False)
    assert kept.tokens(["Café"]) == [[ID["[UNK]"]]] and kept.fingerprint != WordPieces(PIECES).fingerprint


def test_pairs_share_what_is_free():
    """Word pieces take their places in turn, the first sentence's first."""
    assert encode(["good"], ["the film is bad ."]) == [
        ["[CLS]", "good", "[SEP]", "the", "film", "is", "bad", "[SEP]"]]
    assert encode(["the film is bad ."], ["good"]) == [
        ["[CLS]", "the", "film", "is", "bad", "[SEP]", "good", "[SEP]"]]
    assert encode(["the film is bad ."], ["not very good !"]) == [
        ["[CLS]", "the", "film", "is", "[SEP]", "not", "very", "[SEP]"]]


def test_segments_and_sentences():
    special = SpecialTokens(0, 2, 3)
    tokens = np.array([[2, 7, 8, 3, 9, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0, 0], [2, 3, 5, 6, 7, 8, 9, 3]], np.int32)
    segments, mask = Segments(special)(tokens)
    np.testing.assert_array_equal(segments, [[0, 0, 0, 0, 1, 1, 0, 0], [0] * 8, [0, 0, 1, 1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(mask, tokens != 0)
    first, second = Sentences(special)(tokens)
    np.testing.assert_array_equal(first, [[7, 8, 0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0], [0] * 8])
    np.testing.assert_array_equal(second, [[9, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [5, 6, 7, 8, 9, 0, 0, 0]])


def test_the_maximum_leaves_padding_out():
    states = np.array([[[-1.0, 5], [-2, 4], [9, 9]], [[1, 1], [2, 2], [3, 3]]], np.float32)
    np.testing.assert_array_equal(MaxOverTime()(states, np.array([[4, 5, 0], [0, 0, 0]])), [[-1, 5], [0, 0]])


def test_bad_vocabularies(tmp_path):
    with pytest.raises(ValueError, match=r"missing: \['\[MASK\]'\]"):
        WordPieces([p for p in PIECES if p != "[MASK]"])
    with pytest.raises(ValueError, match="are no vocabulary"):
        WordPieces([*PIECES, "a\0b"])
    with pytest.raises(ValueError, match="1 there twice"):
        WordPieces([*PIECES, "good"])
    with pytest.raises(ValueError, match="no vocabulary at"):
        WordPieces.read(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"vocab\.txt"):
        WordPieces.read(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="at least 5"):
        encode(["a"], ["b"], length=4)
    assert WordPieces(PIECES).special == (ID["[PAD]"], ID["[CLS]"], ID["[SEP]"])
