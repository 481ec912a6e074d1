"""Lines to lines, and the directory that holds a translator."""

import itertools
import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_l2t.students import AttentionLSTM, FunctionalTranslator, Transformer
from tf_l2t.translation.batches import encode_pairs
from tf_l2t.translation.bleu import report_bleu
from tf_l2t.translation.decoding import beam_search, greedy
from tf_l2t.translation.subwords import EOS, Subwords
from tf_l2t.translation.text import ParallelText, embedded_help
from tf_l2t.translation.text_translator import Decoding, TextForm, TextTranslator, load_translator

SIZE = 300
HELP = embedded_help()
LINES = [*HELP.source[40:48], "Ja.", "Öffnen Sie die Datei und wählen Sie Extras - Optionen - Laden/Speichern. " * 3]


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train((*HELP.source[:300], *HELP.target[:300]), SIZE)


def network(name="lstm", end=0.0):
    """Random weights, large enough that translations differ from line to line."""
    make = {"lstm": lambda: AttentionLSTM(SIZE, units=8), "transformer": lambda: Transformer(SIZE, 1, 8, 12, 2)}[name]
    model = FunctionalTranslator(make).new_model(0)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight.numpy() + 0.6 * rng.standard_normal(weight.shape))
    model.logits_bias.assign(model.logits_bias.numpy() + end * (np.arange(SIZE) == EOS))
    return model


def one_by_one(model, subwords, lines, decoding):
    """What the class is to give: every line by itself, without padding, and half as much again and 10 tokens long at
    most."""
    found = []
    for line in lines:
        ids = [*subwords.encode(line)[:decoding.longest - 1], EOS]
        source, length = tf.constant([ids]), len(ids) + len(ids) // 2 + 10
        tokens = greedy(model, source, length)[0] if decoding.beam_size == 1 else \
            beam_search(model, source, length, decoding.beam_size, decoding.length_penalty).tokens[0, 0]
        found.append(subwords.decode(tokens.numpy()))
    return found


@pytest.mark.parametrize(("name", "beam_size"), [("lstm", 1), ("lstm", 3), ("transformer", 1)])
def test_lines_are_translated_in_their_order(name, beam_size, subwords):
    """And as if each stood alone, whatever it is put into a batch with: some of these never end by themselves."""
    model = network(name, end=2.0)
    decoding = Decoding(beam_size=beam_size, length_penalty=0.6, longest=20, batch_size=4)
    translations = TextTranslator(model, subwords, decoding)
    heard = []
    found = translations(LINES, progress=lambda done, total: heard.append((done, total)))
    assert found == one_by_one(model, subwords, LINES, decoding)
    assert heard == [(min(done, len(LINES)), len(LINES)) for done in range(4, len(LINES) + 4, 4)]
    assert len(set(found)) > (len(LINES) / 2 if name == "lstm" else 2)
    order = np.random.default_rng(3).permutation(len(LINES))
    assert translations([LINES[i] for i in order]) == [found[i] for i in order]
    assert translations(tuple(LINES[:3])) == found[:3]
    assert translations(["", *LINES[:2], "  "]) == ["", *found[:2], ""]


def test_a_training_step_between_two_calls_is_seen(subwords):
    model = network()
    translations = TextTranslator(model, subwords, Decoding(beam_size=1, longest=20))
    first = translations(LINES)
    for weight in model.trainable_variables:
        weight.assign(-weight)
    assert translations(LINES) != first
    assert translations(LINES) == TextTranslator(model, subwords, Decoding(beam_size=1, longest=20))(LINES)


def test_no_lines_empty_lines_and_unknown_characters(subwords):
    translations = TextTranslator(network(), subwords, Decoding(beam_size=2, longest=20))
    assert translations([]) == []
    strange = ["", "   ", "漢字かな", "a\nb", "\u2028", "☃" * 30]
    found = translations(strange)
    assert len(found) == 6 and all(isinstance(line, str) and "\n" not in line for line in found)
    assert found[0] == found[1]
    assert found[2] == translations(strange[2:3])[0]
    silent = TextTranslator(network(end=100.0), subwords, Decoding(beam_size=2, longest=20))
    assert silent(LINES) == [""] * len(LINES)
    assert report_bleu(silent(LINES), LINES).score == 0


def test_a_line_that_is_too_long_is_cut(subwords):
    model = network()
    long = " ".join(HELP.source[100:140])
    ids = subwords.encode(long)
    assert len(ids) > 100
    translations = TextTranslator(model, subwords, Decoding(beam_size=1, longest=20))
    kept = tf.constant([[*ids[:19], EOS]])
    expected = subwords.decode(greedy(model, kept, 40).numpy()[0])
    assert translations([long]) == [expected]
    assert translations([long + " noch mehr"]) == [expected]
    assert TextTranslator(model, subwords, Decoding(beam_size=1, longest=60))([long]) != [expected]
    fits = subwords.decode(ids[:19])
    assert len(subwords.encode(fits)) == 19 and len(subwords.encode(f"{fits} a")) >= 20
    assert translations.cut(["", long, fits, f"{fits} a"]) == [1, 3] and translations.cut([]) == []


def test_traces_are_few(subwords):
    """One, whatever the number of lines and calls and their lengths."""
    model, traced = network(), []
    encode = model.encode

    def counted(source, training=False):
        traced.append(tuple(source.shape))
        return encode(source, training)

    model.encode = counted
    translations = TextTranslator(model, subwords, Decoding(beam_size=1, batch_size=4, longest=30))
    lines = list(HELP.source[:24])
    for count in (24, 23, 12, 24):
        translations(lines[:count])
    assert traced == [(4, None)]


def test_an_unrolled_student_translates_as_another(subwords):
    """One that takes sentences of one static length is traced for every width."""
    model = network(end=2.0)
    unrolled = AttentionLSTM(SIZE, units=8, unroll=True)
    for own, given in zip(unrolled.trainable_variables, model.trainable_variables, strict=True):
        own.assign(given)
    found, expected = (TextTranslator(made, subwords, Decoding(beam_size=1, longest=14, batch_size=4))(LINES)
                       for made in (unrolled, model))
    assert found == expected and len(set(found)) > 4


def test_the_ids_of_pairs_do_not_depend_on_their_targets(subwords):
    translations = TextTranslator(network(end=2.0), subwords, Decoding(beam_size=1, batch_size=5, longest=20))
    text = ParallelText(tuple(LINES), tuple(reversed(LINES)), "pairs")
    ids = translations.tokens(encode_pairs(subwords, text, 20, too_long="truncate"))
    assert [subwords.decode(row) for row in ids] == translations(LINES)


LOAD = """
import json, sys
from tf_l2t.translation.text_translator import load_translator
print(json.dumps(load_translator(sys.argv[1])(json.load(open(sys.argv[2])))))
"""


def test_a_saved_translator_gives_the_same_lines_in_another_process(subwords, tmp_path):
    translations = TextTranslator(network("transformer", end=2.0), subwords, Decoding(3, 0.7, 20, 8))
    found = translations(LINES)
    assert translations.save(tmp_path / "deep" / "saved") == tmp_path / "deep" / "saved"
    assert sorted(p.name for p in (tmp_path / "deep" / "saved").iterdir()) == [
        "decoding.json", "student.keras", "subwords.model", "text.json"]
    (tmp_path / "lines.json").write_text(json.dumps(LINES))
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path / "deep" / "saved"), str(tmp_path / "lines.json")],
                          check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == found


@pytest.fixture
def saved(subwords, tmp_path):
    return TextTranslator(network(), subwords, Decoding(3, 0.7, 20, 8)).save(tmp_path / "saved")


def test_loading_may_decode_in_another_way(saved, subwords):
    assert load_translator(saved).decoding == Decoding(3, 0.7, 20, 8)
    other = load_translator(saved, beam_size=1, longest=16)
    assert other.decoding == Decoding(1, 0.7, 16, 8)
    assert other(LINES) == TextTranslator(network(), subwords, Decoding(1, 0.7, 16, 8))(LINES)
    assert other(LINES) != load_translator(saved)(LINES)
    assert json.loads((saved / "decoding.json").read_text())["beam_size"] == 3  # the saved one stays
    with pytest.raises(ValueError, match="beam_size"):
        load_translator(saved, beam_size=0)
    with pytest.raises(ValueError, match="beams"):
        load_translator(saved, beams=2)


def test_text_in_another_form_than_plain(subwords, tmp_path):
    """Moses' tokens in lower case, as IWSLT-14 is: plain lines go through that form, and come back from it."""
    form = TextForm("de", "en", "moses", True)
    assert form.of_plain(["Ist's GUT?", ""]) == ["ist &apos; s gut ?", ""]
    assert form.to_plain(["it &apos;s good .", ""]) == ["it's good.", ""]
    folder = TextTranslator(network(), subwords, form=form).save(tmp_path / "moses")
    found = load_translator(folder)
    assert found.form == form and TextTranslator(network(), subwords).form == TextForm()
    assert found.translate_plain(LINES) == form.to_plain(found(form.of_plain(LINES)))
    assert found.translate_plain(LINES) != found(LINES)
    assert found.unknown(["Ja.", "☃", "Ja ☃"]) == [1, 2]


@pytest.mark.parametrize(("damage", "name"), [
    *itertools.product(["missing", "empty", "cut", "other"], ["student.keras", "subwords.model", "decoding.json",
                                                              "text.json"]),
    ("flipped", "student.keras")])  # no other file has a checksum
def test_a_damaged_directory_is_named(name, damage, saved):
    content = (saved / name).read_bytes()
    if damage == "missing":
        (saved / name).unlink()
    elif damage == "flipped":
        with zipfile.ZipFile(saved / name) as archive:
            weights = archive.getinfo("model.weights.h5")
        where = weights.header_offset + weights.compress_size // 2  # within them: of headers no checksum is kept
        (saved / name).write_bytes(content[:where] + bytes([content[where] ^ 255]) + content[where + 1:])
    else:
        (saved / name).write_bytes({"empty": b"", "cut": content[:len(content) // 2], "other": b"[1, 2]"}[damage])
    with pytest.raises(ValueError, match="saved") as caught:
        load_translator(saved)
    assert name in str(caught.value)


def test_no_directory_and_what_is_no_translator(saved, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.*student.keras, subwords.model, decoding.json, text.json"):
        load_translator(tmp_path / "nowhere")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(saved / "student.keras")
    with pytest.raises(ValueError, match="Sequential, which is no translation student"):
        load_translator(saved)


def test_subwords_of_another_size_do_not_fit(saved, subwords):
    Subwords.train((*HELP.source[:300], *HELP.target[:300]), SIZE + 1).save(saved / "subwords.model")
    with pytest.raises(ValueError, match=r"subwords.model holds 301 subwords.*student.keras has a vocabulary of 300"):
        load_translator(saved)
    with pytest.raises(ValueError, match=r"5.*300"):
        TextTranslator(AttentionLSTM(5, units=2), subwords)


@pytest.mark.parametrize("decoding", [
    {"beam_size": 0}, {"batch_size": 0}, {"longest": 1}, {"length_penalty": -1.0}, {"length_penalty": float("nan")},
    {"beam_size": "5"}, {"beam_size": 2.5}, {"batch_size": None}])
def test_decoding_that_cannot_be(decoding, subwords):
    with pytest.raises(ValueError, match="beam_size and batch_size must be"):
        TextTranslator(network(), subwords, Decoding(**decoding))


def test_one_string_is_not_lines(subwords):
    with pytest.raises(ValueError, match="list of lines"):
        TextTranslator(network(), subwords)("Guten Morgen.")
