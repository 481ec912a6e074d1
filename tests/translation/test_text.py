import warnings

import numpy as np
import pytest

from tf_l2t.translation.text import (
    Origin,
    ParallelText,
    TextSplits,
    decoded_lines,
    embedded_help,
    fingerprint,
    read_parallel,
    read_splits,
    read_tsv,
    split_text,
    write_splits,
)
from tf_l2t.translation.tfds_text import read_translation_tfds


def _write(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def _read(folder):
    return read_parallel(folder / "train.de", folder / "train.en")


def test_parallel_files(tmp_path):
    _write(tmp_path, train_de="\ufeffEins.\r\nZwei\u2028zwei\x85\x0c.\r\nDrei.", train_en="One.\nTwo.\nThree.\n")
    text = _read(tmp_path)
    assert text == ParallelText(("Eins.", "Zwei\u2028zwei\x85\x0c.", "Drei."), ("One.", "Two.", "Three."), "train",
                                Origin(str(tmp_path / "train.de"), str(tmp_path / "train.en")))
    assert text.size == 3 and text.take(np.array([2, 0])).target == ("Three.", "One.")


@pytest.mark.parametrize(("german", "english", "message"), [
    ("a\nb\nc\n", "a\nb\n", r"train\.de has 3 lines and .*train\.en has 2.*Line 3 of \S*train\.de"),
    ("a\n", "a\nb\n", r"Line 2 of \S*train\.en has no counterpart in \S*train\.de"),
    ("a\n\nc\n", "a\nb\nc\n", r"train\.de, line 2 is empty"),
    ("a\nb\n", "a\n \t\n", r"train\.en, line 2 is empty"),
    ("a\nb\n\n", "a\nb\nc\n", r"train\.de, line 3 is empty"),
    ("a\nb\n", b"a\nb\xfcro\n", r"train\.en, line 2: byte 0xfc is not UTF-8"),
    ("", "", "no sentence"),
])
def test_bad_parallel_files(german, english, message, tmp_path):
    _write(tmp_path, train_de=german, train_en=english)
    with pytest.raises(ValueError, match=message):
        _read(tmp_path)


def test_missing_files(tmp_path):
    _write(tmp_path, train_de="a\n")
    with pytest.raises(ValueError, match=r"no file .*train\.en"):
        _read(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_parallel(tmp_path / "train.de", tmp_path)


def test_decoded_lines():
    assert decoded_lines(b"", "f") == [] and decoded_lines(b"\n", "f") == [""]
    assert decoded_lines(b"a\r\n\r\nb\rc", "f") == ["a", "", "b\rc"]


def test_tsv(tmp_path):
    _write(tmp_path, pairs_tsv='"Eins\tOne\nZwei\tTwo"\n')
    path = tmp_path / "pairs.tsv"
    assert read_tsv(path) == ParallelText(('"Eins', "Zwei"), ("One", 'Two"'), "pairs",
                                          Origin(f"{path} (source)", f"{path} (target)"))
    for content, message in (("a\tb\nc\n", r"pairs\.tsv, line 2 .*has 1 column: 'c'"),
                             ("a\tb\nc\td\te\n", "line 2 .*has 3 columns"), ("a\t\n", r"\(target\), line 1 is empty"),
                             ("a\tb\n\n", "line 2"), (b"a\t\xff\n", "line 1: byte 0xff")):
        _write(tmp_path, pairs_tsv=content)
        with pytest.raises(ValueError, match=message):
            read_tsv(tmp_path / "pairs.tsv")


PARTS = {"train": (("eins", "zwei", "drei"), ("one", "two", "three")), "valid": (("vier",), ("four",)),
         "test": (("fünf", "sechs"), ("five", "six"))}


def _splits(**about):
    parts = [ParallelText(*PARTS[part], name=part) for part in ("train", "valid", "test")]
    return TextSplits(*parts, "numbers", about)


def test_splits_of_a_folder(tmp_path):
    _write(tmp_path, **{f"{part}_{language}": "\n".join(lines) + "\n" for part, sides in PARTS.items()
                        for language, lines in zip(("fr", "en"), sides, strict=True)})
    splits = read_splits(tmp_path, "fr", "en")
    origins = [Origin(*(str(tmp_path / f"{part}.{language}") for language in ("fr", "en")))
               for part in ("train", "valid", "test")]
    assert [part.origin for part in splits[:3]] == origins and splits.name == tmp_path.name
    assert [part._replace(origin=None) for part in splits[:3]] == list(_splits()[:3])
    assert splits.about == {"source": tmp_path.name, "languages": ["fr", "en"], "train": 3, "dev": 1, "test": 2}
    with pytest.raises(ValueError, match=r"no file .*train\.de"):
        read_splits(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        read_splits(tmp_path / "train.fr")


def test_written_splits_come_back(tmp_path):
    splits = _splits(source="numbers", variant="short", dev=99, published={"train": 3})
    write_splits(splits, tmp_path / "new" / "folder")
    splits = read_splits(tmp_path / "new" / "folder")
    assert fingerprint(splits) == fingerprint(_splits())
    assert splits.about["variant"] == "short" and splits.about["published"] == {"train": 3}
    assert splits.about["source"] == "numbers" and splits.name == "folder" and splits.about["dev"] == 1
    for bad in ("", " ", "a\nb", "a\r"):
        with pytest.raises(ValueError, match=r"valid\.en: sentence 0 is empty or has a line break"):
            write_splits(_splits()._replace(dev=ParallelText(("a",), (bad,))), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    write_splits(_splits(train=3, dev=1, test=2, matches_published=True), tmp_path / "new" / "folder")
    assert read_splits(tmp_path / "new" / "folder").about["matches_published"]
    for language in ("de", "en"):  # of fewer pairs it does not hold
        (tmp_path / "new" / "folder" / f"test.{language}").write_text("a\n")
    about = read_splits(tmp_path / "new" / "folder").about
    assert "matches_published" not in about and about["test"] == 1
    for bad in ("no", "3", "[1]"):
        (tmp_path / "new" / "folder" / "about.json").write_text(bad)
        with pytest.raises(ValueError, match=r"about\.json holds no JSON"):
            read_splits(tmp_path / "new" / "folder")


def test_the_split_is_a_partition_by_seed():
    pool = ParallelText(tuple(f"s{i}" for i in range(50)), tuple(f"t{i}" for i in range(50)), "pool")
    splits = split_text(pool, 7, 11, seed=3)
    assert [part.size for part in splits[:3]] == [32, 7, 11]
    assert splits.about == {"source": "pool", "split_seed": 3, "train": 32, "dev": 7, "test": 11}
    sources = [line for part in splits[:3] for line in part.source]
    assert sorted(sources) == sorted(pool.source) and sources != list(pool.source)
    assert [line[1:] for line in sources] == [line[1:] for part in splits[:3] for line in part.target]
    assert fingerprint(splits) == fingerprint(split_text(pool, 7, 11, seed=3)) != fingerprint(split_text(pool, 7, 11))
    for sizes in ((0, 5), (5, 0), (25, 25)):
        with pytest.raises(ValueError, match="at least one"):
            split_text(pool, *sizes)


def test_messages_name_file_and_line_of_pairs_that_were_drawn(tmp_path):
    lines = [f"Satz {i}\tsentence {i}" for i in range(1, 51)]
    _write(tmp_path, pool_tsv="\n".join(lines))
    splits = split_text(read_tsv(tmp_path / "pool.tsv"), 7, 11, seed=3)
    for part in (*splits[:3], splits.dev.take([4, 2]).take([1])):
        for i, (source, target) in enumerate(zip(part.source, part.target, strict=True)):
            assert part.place("source", i) == f"{tmp_path / 'pool.tsv'} (source), line {source.removeprefix('Satz ')}"
            assert part.swapped().place("source", i) == part.place("target", i)
            assert part.place("target", i).endswith(f"(target), line {target.removeprefix('sentence ')}")
    _write(tmp_path, train_de="a\nb\nc\n", train_en="a\nb\nc\n")
    assert _read(tmp_path).take([2, 1]).place("target", 0) == f"{tmp_path / 'train.en'}, line 3"
    assert ParallelText(("a",), ("b",), "mine").place("source", 0) == "mine, line 1 (source)"


def test_the_fingerprint_sees_every_sentence_in_its_place():
    splits = _splits()
    changed = [splits._replace(test=splits.test._replace(target=("five", "sixty"))),
               splits._replace(train=splits.train.take([1, 0, 2])),
               splits._replace(dev=splits.test, test=splits.dev),
               splits._replace(dev=splits.dev._replace(source=("vi",), target=("erfour",))),
               splits._replace(dev=splits.dev._replace(source=splits.dev.target, target=splits.dev.source))]
    assert len({fingerprint(s) for s in [splits, *changed]}) == 6
    assert fingerprint(splits) == fingerprint(splits._replace(name="other", about={"a": 1}))


def test_embedded_help():
    text = embedded_help()
    assert text.size == len(set(text.target)) == 6000
    # The first pair of the file.
    assert text.source[0] == "Als unär werden Operatoren bezeichnet, die auf einen Platzhalter wirken."
    assert text.target[0] == "Unary refers to operators that affect one placeholder."
    assert all(line.strip() for line in (*text.source, *text.target))


def _store(folder, name, features, splits, file_format="tfrecord"):
    import tensorflow_datasets as tfds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name, version="1.1.0", features=tfds.features.FeaturesDict(features), split_datasets=splits,
            data_dir=folder, file_format=file_format, disable_shuffling=True)


def test_a_line_break_in_a_stored_sentence_is_named(monkeypatch):
    parts = {name: [{"de": "eins", "en": "one"}, {"de": "zwei", "en": "two"}] for name in ("train", "valid", "test")}
    parts["valid"][1] = {"de": "zwei", "en": "two\nlines"}
    monkeypatch.setattr("tf_l2t.translation.tfds_text._prepared_examples", lambda name, data_dir: parts)
    with pytest.raises(ValueError, match=r"ted \(valid\) \(en\), example 2 has a line break"):
        read_translation_tfds("ted")
    parts["valid"][1] = {"de": "", "en": "two\nlines"}  # no pair
    assert read_translation_tfds("ted").dev.size == 1
    parts["valid"].insert(1, {"de": "zwei", "en": ""})
    parts["valid"][2] = {"de": "drei", "en": "three"}
    dev = read_translation_tfds("ted").dev
    assert dev.target == ("one", "three") and dev.place("target", 1) == "ted (valid) (en), example 3"


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_ted_multi_translate(file_format, tmp_path):
    import tensorflow_datasets as tfds

    # The features of tensorflow-datasets' own builder.
    features = {"translations": tfds.features.TranslationVariableLanguages(languages=["de", "en", "fr"]),
                "talk_name": tfds.features.Text()}
    talks = {"train": [{"de": "eins", "en": "one", "fr": "un"}, {"en": "alone", "fr": "seul"},
                       {"de": "schön", "en": "nice"}],
             "validation": [{"de": "zwei", "en": "two"}], "test": [{"de": "drei", "en": "three", "fr": "trois"}]}
    _store(tmp_path, "ted_multi_translate", features,
           {split: [(i, {"translations": talk, "talk_name": "t"}) for i, talk in enumerate(part)]
            for split, part in talks.items()}, file_format)
    splits = read_translation_tfds("ted_multi_translate", str(tmp_path))
    assert splits.train[:2] == (("eins", "schön"), ("one", "nice"))
    assert splits.dev[:2] == (("zwei",), ("two",)) and splits.test[:2] == (("drei",), ("three",))
    assert splits.about == {"source": "ted_multi_translate", "languages": ["de", "en"], "train": 2, "dev": 1,
                            "test": 1, "without_pair": 1}
    with pytest.raises(ValueError, match=r"\(validation\) has no pair of \('fr', 'en'\).*'de', 'en'"):
        read_translation_tfds("ted_multi_translate", str(tmp_path), ("fr", "en"))
    with pytest.raises(ValueError, match="two languages"):
        read_translation_tfds("ted_multi_translate", str(tmp_path), ("de", "de"))


def test_missing_tfds(tmp_path):
    with pytest.raises(ValueError, match=r"`tfds build ted_multi_translate --data_dir="):
        read_translation_tfds("ted_multi_translate", str(tmp_path))


def test_a_folder_of_text_files(tmp_path):
    for split, (source, target) in PARTS.items():
        (tmp_path / f"de.{split}.txt").write_text("\n".join(source) + "\n", encoding="utf-8")
        (tmp_path / f"en.{split}.txt").write_text("\n".join(target) + "\n", encoding="utf-8")
    splits = read_translation_tfds("translate_folder", str(tmp_path))
    assert fingerprint(splits) == fingerprint(_splits())
    with pytest.raises(ValueError, match=r"languages are \['de', 'en'\]"):
        read_translation_tfds("translate_folder", str(tmp_path), ("de", "fr"))
    (tmp_path / "en.test.txt").unlink()
    (tmp_path / "de.test.txt").unlink()
    with pytest.raises(ValueError, match=r"splits \['train', 'valid'\], but not \['test'\]"):
        read_translation_tfds("translate_folder", str(tmp_path))
    (tmp_path / "en.test.txt").write_text("a\n")
    (tmp_path / "de.test.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"equally many\. Line 2 of .*de\.test\.txt has no counterpart in .*en\.test"):
        read_translation_tfds("translate_folder", str(tmp_path))
    for content, match in ((b"a\n\xe4\n", r"en\.test\.txt, line 2: byte 0xe4 is not UTF-8"),
                           (b"a\n\n", r"en\.test\.txt, line 2 is empty")):
        (tmp_path / "en.test.txt").write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read_translation_tfds("translate_folder", str(tmp_path))
    # What `str.splitlines` splits at, but no file of one sentence a line.
    (tmp_path / "de.test.txt").write_text("a\nb\u2028c\nd\n", encoding="utf-8")
    (tmp_path / "en.test.txt").write_text("A\nB\nC\x85D\n", encoding="utf-8")
    found = read_translation_tfds("translate_folder", str(tmp_path)).test
    assert (found.source, found.target) == (("a", "b\u2028c", "d"), ("A", "B", "C\x85D"))
    (tmp_path / "LICENSE").write_text("mine\n")
    with pytest.raises(ValueError, match=r"nothing but files LANGUAGE\.SPLIT\.txt; received 'LICENSE'"):
        read_translation_tfds("translate_folder", str(tmp_path))
    with pytest.raises(ValueError, match="needs data_dir"):
        read_translation_tfds("translate_folder")
