import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.translation.subwords import BOS, EOS, PAD, SPECIAL_PIECES, UNK, Subwords
from tf_l2t.translation.text import embedded_help

WORDS = ["Haus", "Häuser", "house", "houses", "Straße", "the", "die", "10", "€", "Größe"]


def _lines(count=200):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


LINES = _lines()


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(LINES, size=60)


@pytest.fixture(scope="module")
def help_text():
    return embedded_help()


@pytest.fixture(scope="module")
def help_subwords(help_text):
    return Subwords.train([*help_text.source, *help_text.target], size=1000)


def test_every_line_comes_back(help_text, help_subwords):
    lines = [*help_text.source[:1000], *help_text.target[:1000]]
    assert [help_subwords.decode(ids) for ids in help_subwords.encode_lines(lines)] == lines
    assert help_subwords.size == len(help_subwords.pieces) == len(set(help_subwords.pieces)) == 1000
    # BPE, not characters.
    assert sum(map(len, help_subwords.encode_lines(lines))) < 0.5 * sum(map(len, lines))


def test_ids_are_positions_of_pieces(subwords):
    assert subwords.pieces[:4] == SPECIAL_PIECES and (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    for line in LINES[:20]:
        ids = subwords.encode(line)
        assert min(ids) >= 4  # no special id is added
        assert "".join(subwords.pieces[i] for i in ids).replace("▁", " ").strip() == line
    encoded = subwords.encode_lines(LINES)
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert [ids.tolist() for ids in encoded] == [subwords.encode(line) for line in LINES]


def test_merges_are_those_of_the_most_frequent_pairs():
    # "ab" is by far the most frequent pair, then " ab": with two merges they are the pieces.
    trained = Subwords.train(["ab ab ab ab ab", "ac ab dc ab"], size=4 + 5 + 2)
    assert trained.pieces[4:6] == ("ab", "▁ab") or trained.pieces[4:6] == ("▁a", "▁ab")
    assert set(trained.pieces[6:]) == {"▁", "a", "b", "c", "d"}


def test_training_is_deterministic_and_covers_every_character(subwords):
    assert Subwords.train(LINES, size=60).proto == subwords.proto
    rare = Subwords.train([*LINES, "ﬁ ½ … 日"], size=70)
    assert rare.decode(rare.encode("ﬁ ½ … 日")) == "ﬁ ½ … 日" and UNK not in rare.encode("ﬁ ½ … 日")
    assert UNK in subwords.encode("日")


def test_very_long_lines_count():
    long = " ".join(["Haus"] * 2000 + ["Ω"])
    assert "Ω" in Subwords.train([*LINES, long], size=60).pieces


def test_decode(subwords):
    ids = subwords.encode("die Häuser")
    assert subwords.decode([BOS, *ids, EOS, *ids, PAD]) == "die Häuser"
    assert subwords.decode(np.array([PAD, *ids, PAD], np.int32)) == "die Häuser"
    assert subwords.decode([]) == subwords.decode([EOS, *ids]) == subwords.decode([PAD, BOS]) == ""
    assert "⁇" in subwords.decode([UNK])
    for bad in (-1, 60):
        with pytest.raises(ValueError, match=rf"0 … 59; received {bad}"):
            subwords.decode([*ids, bad])


def test_lower_case_is_part_of_the_model(tmp_path, subwords):
    lower = Subwords.train(LINES, size=50, lower=True)
    assert lower.lower and not subwords.lower
    assert lower.decode(lower.encode("Die HÄUSER Straße 10 €")) == "die häuser straße 10 €"
    lower.save(tmp_path / "lower.model")
    again = Subwords.load(tmp_path / "lower.model")
    assert again.encode("HAUS") == lower.encode("haus")
    assert np.asarray(again.keras_tokenizer()("HAUS Größe")).tolist() == lower.encode("haus größe")


def test_save_and_load(tmp_path, subwords):
    subwords.save(tmp_path / "a.model")
    again = Subwords.load(str(tmp_path / "a.model"))
    assert again.proto == subwords.proto and again.pieces == subwords.pieces
    assert again.encode(LINES[3]) == subwords.encode(LINES[3])


def test_the_keras_tokenizer_gives_the_same_ids(help_text, help_subwords):
    lines = [*help_text.source[:200], *help_text.target[:200], "Ω is unknown", "", "<s> and </s> are text"]
    expected = [help_subwords.encode(line) for line in lines]
    assert [list(ids) for ids in help_subwords.keras_tokenizer()(lines)] == expected
    in_graph = tf.data.Dataset.from_tensor_slices(lines).map(help_subwords.keras_tokenizer())
    assert [ids.numpy().tolist() for ids in in_graph] == expected
    dense = help_subwords.keras_tokenizer(sequence_length=9, add_eos=True)(["Wählen Sie", lines[0]])
    assert dense.shape == (2, 9)
    ids = help_subwords.encode("Wählen Sie")
    assert np.asarray(dense)[0].tolist() == [*ids, EOS, *[PAD] * (8 - len(ids))]


def test_a_size_that_is_not_possible_names_one_that_is():
    with pytest.raises(ValueError, match=r"size=5000; at most (\d+) is possible") as error:
        Subwords.train(LINES, size=5000)
    most = int(str(error.value).split("at most ")[1].split()[0])
    assert Subwords.train(LINES, size=most).size == most
    with pytest.raises(ValueError, match="at most"):
        Subwords.train(LINES, size=most + 1)
    with pytest.raises(ValueError, match=r"size=10 is too small.*need (\d+)") as error:
        Subwords.train(LINES, size=10)
    least = int(str(error.value).split("need ")[1].split(",")[0])
    assert least == 4 + len(set("".join(LINES)))  # specials and characters, the space among them
    assert Subwords.train(LINES, size=least).size == least
    with pytest.raises(ValueError, match="too small"):
        Subwords.train(LINES, size=least - 1)
    for size in (4, 0, -1):
        with pytest.raises(ValueError, match=f"above 4.*received {size}"):
            Subwords.train(LINES, size=size)


def test_bad_lines():
    with pytest.raises(ValueError, match="one string"):
        Subwords.train("Haus")
    for nothing in ([], ["", " "]):
        with pytest.raises(ValueError, match="no line to train"):
            Subwords.train(nothing, size=20)
    with pytest.raises(ValueError, match="line 2 has a line break"):
        Subwords.train(["Haus", "die\nStraße"], size=20)
    for taken in ("\0", "▅"):
        with pytest.raises(ValueError, match=r"line 2 holds .* which SentencePiece keeps for itself"):
            Subwords.train(["Haus", f"die {taken} Straße"], size=20)


def test_bad_files(tmp_path):
    import io

    import sentencepiece

    with pytest.raises(ValueError, match=r"no file .*none\.model"):
        Subwords.load(tmp_path / "none.model")
    with pytest.raises(ValueError, match=f"{tmp_path}"):
        Subwords.load(tmp_path)
    for content in (b"", b"no model", b"\x00" * 64, Subwords.train(LINES, size=60).proto[:200]):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.model: .*no SentencePiece model"):
            Subwords.load(tmp_path / "bad.model")
    other = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=other, vocab_size=60,
                                             model_type="bpe", character_coverage=1.0, minloglevel=2)
    (tmp_path / "other.model").write_bytes(other.getvalue())
    with pytest.raises(ValueError, match=r"other\.model: the special ids.*'unk': 0"):
        Subwords.load(tmp_path / "other.model")
