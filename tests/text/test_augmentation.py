"""TinyBERT's augmentation: which words are replaced, by what, how often."""

from unittest import mock

import numpy as np
import pytest
from absl import logging

from tests.commands import run_module
from tests.text import tiny_encoder
from tf_l2t.text import (
    Examples,
    WordVectors,
    augmented,
    load_encoder,
    load_masked_language_model,
    masked_candidates,
    neighbours,
)
from tf_l2t.text.tasks import read_rows
from trainers.augment import augment

SENTENCE = "The Film is very good , isn't it ?"


def fixed(words, indices, count):
    return [[f"{words[i].lower()}{k}" for k in range(count)] for i in indices]


def always(*found):
    return lambda words, indices, count: [list(found)] * len(indices)


def test_which_words_are_replaced():
    made = augmented(SENTENCE, [fixed], np.random.default_rng(0), copies=50, num_candidates=2, probability=1.0)
    assert made[0] == SENTENCE
    # Function words, and what is no word, stay; so does "isn't", which is cut into isn, ', t.
    assert {tuple(new.split()[6:]) for new in made[1:]} == {("isn", "'", "t", "it", "?")}
    assert {new.split()[0] for new in made[1:]} == {"The"}
    assert {new.split()[1] for new in made[1:]} == {"Film0", "Film1"}
    assert {new.split()[4] for new in made[1:]} == {"good0", "good1"}
    assert all(new.split()[2:4] == ["is", "very"] for new in made[1:])
    assert len(set(made)) == len(made)


def test_how_often():
    """The number of words replaced, out of 1,000, within four standard deviations of 0.4 · 1,000."""
    words = " ".join(["word"] * 1000)
    (_, copy) = augmented(words, [always("other")], np.random.default_rng(0), copies=1, probability=0.4)
    assert abs(copy.split().count("other") - 400) < 4 * np.sqrt(1000 * 0.4 * 0.6)
    assert augmented(words, [fixed], np.random.default_rng(0), probability=0.0) == [words]
    assert augmented(words, [always()], np.random.default_rng(0), probability=1.0) == [words]
    assert augmented(words, [pytest.fail], np.random.default_rng(0), copies=0) == [words]  # and no source is asked


def test_sources_are_tried_in_order():
    def first(words, indices, count):
        return [["a"] if words[i] == "plot" else [] for i in indices]

    def second(words, indices, count):
        assert [words[i] for i in indices] == ["twist"]  # what the first has is not asked for again
        return [["b"]]

    assert augmented("plot twist", [first, second], np.random.default_rng(0), copies=1, probability=1.0)[1] == "a b"


def test_neighbours():
    vectors = WordVectors(["good", "great", "bad", "far"], [[1, 0], [2, 0.1], [-1, 0], [0, 1]])
    assert vectors.nearest("good", 2) == ["great", "far"] and vectors.nearest("unknown", 2) == []
    assert vectors.nearest("bad", 9) == ["far", "great", "good"]  # cosines 0, −0.9988, −1
    assert neighbours(vectors)(["Good", "bad", "x"], [0, 2, 1], 1) == [["great"], [], ["far"]]


def test_files_of_word_vectors(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("good 1 0\ngreat 1 0.1\nfar 0 1\n")
    assert WordVectors.read(file).nearest("good", 1) == ["great"]
    assert WordVectors.read(file, limit=2).words == ("good", "great")
    file.write_text("good 1 0\n. . . 0 1\nfar 1 1\n")
    assert WordVectors.read(file).words == ("good", ". . .", "far")
    # A first line of sizes, as word2vec and fastText write it, is no word.
    file.write_text("3 2\ngood 1 0\n7 1 0.1\nfar 0 1\n")
    assert WordVectors.read(file).words == ("good", "7", "far") and WordVectors.read(file).nearest("good", 1) == ["7"]
    for text, match in ((b"1 3\na 1 2\n", "line 2: 2 numbers; by line 1 a word has 3"),
                        (b"a 1 2\nb 1\n", "line 2: 1 numbers; by line 1 a word has 2"),
                        (b"a 1 x\n", "line 1: not a word and"),
                        (b"a 1\n\xff 2\n", "vectors.txt', line 2: not a word and")):
        file.write_bytes(text)
        with pytest.raises(ValueError, match=match):
            WordVectors.read(file)
    with pytest.raises(ValueError, match="no file of word vectors"):
        WordVectors.read(tmp_path / "nowhere")


def test_a_masked_language_model_proposes(tmp_path):
    """The words of the largest logits at the masked place, and none for a word of several pieces."""
    model, wordpieces = load_masked_language_model(tiny_encoder.write(tmp_path, mlm=True))
    words, seen = ["the", "cab", "film", "is"], {}

    def recorded(tokens, places):
        seen["rows"] = [[wordpieces.pieces[i] for i in row] for row in tokens]
        seen["logits"], seen["places"] = np.asarray(model(tokens, places)), places.tolist()
        return seen["logits"]

    candidates = masked_candidates(recorded, wordpieces)
    assert candidates(words, [1], 5) == [[]] and not seen
    found = candidates(words, [3, 1, 2], len(wordpieces.pieces))
    assert seen["rows"] == [["[CLS]", "the", "c", "##a", "##b", "film", "[MASK]", "[SEP]"],
                            ["[CLS]", "the", "c", "##a", "##b", "[MASK]", "is", "[SEP]"]]
    assert seen["places"] == [6, 5] and found[1] == []
    for of_word, logits in zip((found[0], found[2]), seen["logits"], strict=True):
        expected = [wordpieces.pieces[i] for i in np.argsort(-logits)]
        assert of_word == [piece for piece in expected if not piece.startswith("##")]


@pytest.mark.parametrize("mlm", [True, False])
def test_the_command(tmp_path, mlm):
    encoder = tiny_encoder.write(tmp_path / "encoder", mlm=mlm)
    examples = Examples(("good film", "is it"), ("bad plot", "the cast"), np.array([1, 0]))
    target = tmp_path / "augmented.tsv"
    with mock.patch.object(logging, "warning") as warning:
        count = augment(examples, ("0", "1"), str(target), str(encoder), None, 3, 4, 0.9, 0)
    rows = [line.split("\t") for line in target.read_text().splitlines()]
    assert len(rows) == count and rows[0] == ["1", "good film", "bad plot"] and all(len(row) == 3 for row in rows)
    assert sum(row[0] == "1" for row in rows) > 3 and ["0", "is it", "the cast"] in rows
    assert all(row[1] == "good film" or row[2] == "bad plot" for row in rows if row[0] == "1")
    said = [call.args[0] % call.args[1:] for call in warning.call_args_list]
    assert said == [] if mlm else len(said) == 1 and said[0].startswith("neighbours alone: ")
    with pytest.raises(ValueError, match="there already"):
        augment(examples, ("0", "1"), str(target), str(encoder), None, 3, 4, 0.9, 0)


def test_copies_that_are_examples_of_dev_are_left_out(tmp_path):
    """The file of the command is one that its check takes; words are apart by one space."""
    encoder = tiny_encoder.write(tmp_path / "encoder")
    examples = Examples(("good film",), None, np.array([1]))
    for left_out in (frozenset(), {("fine film",), ("awful film",)}):
        target = tmp_path / f"{len(left_out)}.tsv"
        (tmp_path / "v.txt").write_text("good 1 0\nfine 1 0.1\nawful 1 0.2\nplot 0 1\n")
        count = augment(examples, ("0", "1"), str(target), str(encoder), str(tmp_path / "v.txt"), 20, 2, 1.0, 0,
                        left_out)
        rows = {row[1] for row in read_rows(target)}
        assert len(rows) == count and rows == {"good film", "fine film", "awful film"} - {s for s, in left_out}


def test_an_encoder_of_few_positions_is_asked_about_the_first_words(tmp_path):
    encoder = tiny_encoder.write(tmp_path / "encoder", mlm=True, max_position_embeddings=6)
    examples = Examples(("good film the plot is fine not bad awful",), None, np.array([1]))
    augment(examples, ("0", "1"), str(tmp_path / "a.tsv"), str(encoder), None, 3, 4, 0.9, 0)
    assert read_rows(tmp_path / "a.tsv")[0] == ["1", examples.first[0]]


def test_sentences_that_no_reader_takes(tmp_path):
    """A file is one that config.data.augmented takes."""
    encoder = tiny_encoder.write(tmp_path / "encoder")
    examples = Examples(("good\tfilm", "is it", "the\nplot"), ("bad plot", " ", "cast"), np.array([1, 0, 0]))
    with mock.patch.object(logging, "warning") as warning:
        count = augment(examples, ("0", "1"), str(tmp_path / "a.tsv"), str(encoder), None, 1, 4, 0.5, 0)
    rows = read_rows(tmp_path / "a.tsv")
    assert len(rows) == count and ["1", "good film", "bad plot"] in rows and ["0", "the plot", "cast"] in rows
    assert warning.call_args.args == ("%d examples with an empty sentence are left out.", 1)


@pytest.mark.parametrize(("change", "match"), [
    ("--probability=2", "copies must be"), ("--vectors=/nowhere", "no file of word vectors"),
    ("--output=/nowhere/a.tsv", "no directory")])
def test_the_command_refuses_before_any_work(change, match, tmp_path):
    tiny_encoder.write(tmp_path / "encoder")
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.tsv").write_text("1\tgood film\n0\tbad plot\n1\tfine cast\n")
    done = run_module("trainers.augment", "--config=configs/distill_text.py", f"--config.data.path={tmp_path}",
                      f"--config.encoder={tmp_path / 'encoder'}", f"--output={tmp_path / 'out.tsv'}", change)
    assert done.returncode == 2 and match in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.tsv").exists()


@pytest.mark.parametrize("options", [{"copies": -1}, {"num_candidates": 0}, {"probability": 1.5}])
def test_bad_numbers(options):
    with pytest.raises(ValueError, match="copies must be"):
        augmented("a", [fixed], np.random.default_rng(0), **options)


def test_neighbours_of_an_encoder_are_whole_words(tmp_path):
    from tf_l2t.text.augmentation import embedding_vectors

    vectors = embedding_vectors(load_encoder(tiny_encoder.write(tmp_path)))
    assert "good" in vectors.words and not {w for w in vectors.words if w.startswith(("#", "[", "."))}
