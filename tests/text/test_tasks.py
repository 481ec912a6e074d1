"""Tasks from TFDS data sets on the local disk and from tab-separated files; files of submissions."""

import numpy as np
import pytest

from tf_l2t.text import TASKS, read_glue, read_tsv_folder, write_submission


def write_glue(name, data_dir):
    """A real TFDS data set in the place of GLUE's, with the builder's own features."""
    import tensorflow_datasets as tfds

    task = TASKS[name]
    builder = tfds.builder(f"glue/{name}", data_dir=data_dir)
    splits = {"train": 7, **{split: 3 for _, *parts in task.tests for split in parts}}
    features = tfds.features.FeaturesDict({**{column: tfds.features.Text() for column in task.columns},
                                           "label": tfds.features.ClassLabel(names=list(builder.info.features["label"]
                                                                                        .names)), "idx": np.int32})

    def examples(split, count):
        for i in range(count):
            label = -1 if split.startswith("test") else i % len(task.labels)
            yield {**{column: f"{split} {column} {i} größe" for column in task.columns}, "label": label, "idx": i}

    data = {split: list(enumerate(examples(split, count))) for split, count in splits.items()}
    tfds.dataset_builders.store_as_tfds_dataset(name="glue", config=name, version=str(builder.version),
                                                features=features, data_dir=data_dir, split_datasets=data)


# Of GLUE's site and its builders: columns, (file of a submission, labelled, unlabelled split), F1.
GLUE = {
    "sst2": (("sentence",), (("SST-2", "validation", "test"),), False),
    "mrpc": (("sentence1", "sentence2"), (("MRPC", "validation", "test"),), True),
    "qqp": (("question1", "question2"), (("QQP", "validation", "test"),), True),
    "qnli": (("question", "sentence"), (("QNLI", "validation", "test"),), False),
    "mnli": (("premise", "hypothesis"), (("MNLI-m", "validation_matched", "test_matched"),
                                         ("MNLI-mm", "validation_mismatched", "test_mismatched")), False)}


@pytest.mark.parametrize("name", GLUE)
def test_glue(name, tmp_path):
    columns, tests, f1 = GLUE[name]
    assert (tuple(TASKS[name].columns), tuple(map(tuple, TASKS[name].tests)), TASKS[name].f1) == (columns, tests, f1)
    write_glue(name, tmp_path)
    found, task = read_glue(name, 2, str(tmp_path)), TASKS[name]
    assert found.train.size == 5 and found.dev.size == 2
    both = sorted(zip((*found.train.first, *found.dev.first), (*found.train.labels, *found.dev.labels), strict=True))
    assert both == [(f"train {task.columns[0]} {i} größe", i % len(task.labels)) for i in range(7)]
    assert list(found.tests) == list(found.unlabelled) == [submitted for submitted, _, _ in task.tests]
    for submitted, labelled, unlabelled in task.tests:
        assert found.tests[submitted].first[1] == f"{labelled} {task.columns[0]} 1 größe"
        assert found.tests[submitted].labels.tolist() == [i % len(task.labels) for i in range(3)]
        assert found.unlabelled[submitted].labels.tolist() == [-1] * 3
        assert found.unlabelled[submitted].first[2] == f"{unlabelled} {task.columns[0]} 2 größe"
    assert found.pair == (name != "sst2")
    if found.pair:
        assert found.dev.second[0].split()[:2] == ["train", columns[1]]


def test_labels_are_those_of_tfds(tmp_path):
    """What is submitted is named as the builders name their classes, but for the numbers of binary tasks."""
    import tensorflow_datasets as tfds

    for name, task in TASKS.items():
        names = tfds.builder(f"glue/{name}", data_dir=tmp_path).info.features["label"].names
        assert len(names) == len(task.labels)
        assert list(task.labels) in (names, ["0", "1"])


def test_glue_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no prepared glue/mrpc"):
        read_glue("mrpc", 2, str(tmp_path))
    with pytest.raises(ValueError, match="'mnli', 'mrpc'"):
        read_glue("cola", 2, str(tmp_path))


def folder(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    return tmp_path


def test_tab_separated_files(tmp_path):
    path = folder(tmp_path, train="label\tsentence\n10\ta b\n2\tc\n10\td\n", dev="2\te\n", test="10\tf\n")
    found = read_tsv_folder(path)
    assert found.labels == ("2", "10") and found.train.labels.tolist() == [1, 0, 1] and not found.pair
    assert found.train.first == ("a b", "c", "d") and found.dev.first == ("e",)
    assert found.tests["test"].labels.tolist() == [1] and not found.unlabelled


def test_pairs_and_a_dev_set_from_train(tmp_path):
    lines = "".join(f"{'yes' if i % 2 else 'no'}\tu{i}\tv{i}\n" for i in range(10))
    found = read_tsv_folder(folder(tmp_path, train=lines, test=lines), dev_size=4, seed=1)
    assert found.pair and found.labels == ("no", "yes") and (found.train.size, found.dev.size) == (6, 4)
    for part in (found.train, found.dev):
        for first, second, label in zip(*part, strict=True):
            assert second == first.replace("u", "v") and label == int(first[1:]) % 2
    assert {*found.train.first, *found.dev.first} == {f"u{i}" for i in range(10)}


GOOD = "a\tx\nb\ty\n"


@pytest.mark.parametrize(("files", "options", "match"), [
    ({"train": GOOD, "test": GOOD}, {}, "missing: ['dev']"),
    ({"train": GOOD, "valid": GOOD}, {}, "missing: ['test']"),
    ({"train": GOOD, "valid": GOOD, "test": GOOD}, {"dev_size": 1}, "with a dev_size no valid.tsv"),
    ({"train": GOOD, "test": GOOD}, {"dev_size": 2}, "dev_size must be from 1 to 1"),
    ({"train": "a\tx\nb\n", "valid": GOOD, "test": GOOD}, {}, "train.tsv', line 2: a line is label, tab, sentence"),
    ({"train": "a\tx\nb\t \n", "valid": GOOD, "test": GOOD}, {}, "line 2: .* one of them empty"),
    ({"train": GOOD, "valid": "a\tx\tz\n", "test": GOOD}, {}, "received [1, 2] sentences"),
    ({"train": "a\tx\nb\ty\tz\n", "valid": GOOD, "test": GOOD}, {}, "lines of one sentence and lines of two"),
    ({"train": GOOD, "valid": "c\tx\n", "test": GOOD}, {}, "valid.tsv' has the label 'c'"),
    ({"train": "".join(f"s {i}\t{i % 2}\n" for i in range(12)), "valid": GOOD, "test": GOOD}, {},
     "almost as many labels as lines"),
    ({"train": "label\tsentence\n", "valid": GOOD, "test": GOOD}, {}, "holds no example"),
])
def test_bad_files(files, options, match, tmp_path):
    with pytest.raises(ValueError, match=match.replace("[", r"\[").replace("]", r"\]")):
        read_tsv_folder(folder(tmp_path, **files), **options)


def test_a_submission(tmp_path):
    file = write_submission(tmp_path / "new", "QNLI", np.array([1, 0, 1]), TASKS["qnli"].labels)
    assert file.name == "QNLI.tsv"
    assert file.read_text() == "index\tprediction\n0\tnot_entailment\n1\tentailment\n2\tnot_entailment\n"
    for wrong in ([0, 2], [-1], [0.5], []):
        with pytest.raises(ValueError, match="integers in"):
            write_submission(tmp_path / "none", "QNLI", np.array(wrong), TASKS["qnli"].labels)
    assert not (tmp_path / "none").exists()
