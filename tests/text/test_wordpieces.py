"""Word pieces in BERT's layout, and what networks derive from them."""

import keras
import numpy as np
import pytest

from tests.text.tiny_encoder import PIECES
from tf_l2t.students import SpecialTokens, bilstm
from tf_l2t.students.text_inputs import MaxOverTime, Segments, Sentences
from tf_l2t.text import Examples, WordPieces

ID = {piece: i for i, piece in enumerate(PIECES)}


def encode(first, second=None, length=8):
    labels = np.zeros(len(first), np.int32)
    tokens = WordPieces(PIECES).encode(Examples(tuple(first), second and tuple(second), labels), length)
    return [[PIECES[i] for i in row if i != 0] for row in tokens]


def test_features_of_pairs():
    """In NumPy, from what the same layers say of each sentence alone: W [u; v; |u − v|; u · v] + b. Padding changes
    nothing, and the sentences' order does."""
    pieces, none = WordPieces(PIECES), np.zeros(2, np.int32)
    first, second = ("good film", "the film is very bad"), ("not good", "bad")
    model = bilstm(len(PIECES), pair=True, embedding=4, units=3, special=pieces.special)
    alone = bilstm(len(PIECES), embedding=4, units=3, special=pieces.special)
    model.get_layer("embedding").set_weights([20 * model.get_layer("embedding").get_weights()[0]])
    for name in ("embedding", "bilstm"):
        alone.get_layer(name).set_weights(model.get_layer(name).get_weights())

    def pooled(network, *sentences, length):
        tokens = pieces.encode(Examples(*sentences, *[None] * (2 - len(sentences)), none), length)
        return keras.Model(network.input, network.get_layer("pooled").output)(tokens).numpy()

    u, v = (pooled(alone, sentences, length=12) for sentences in (first, second))
    assert u.shape == (2, 6) and np.abs(u - v).max() > 0.1
    kernel, bias = model.get_layer("pooled").get_weights()
    expected = np.concatenate([u, v, np.abs(u - v), u * v], axis=1) @ kernel + bias
    for length in (12, 20):
        np.testing.assert_allclose(pooled(model, first, second, length=length), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(pooled(model, second, first, length=12) - expected).max() > 1e-3


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
