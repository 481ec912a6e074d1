"""Tasks of text classification: GLUE's through tensorflow-datasets, and any from local tab-separated files."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_l2t.translation.text import decoded_lines


class Task(NamedTuple):
    """What a task asks.

    Attributes:
      columns: of the sentence, or of the two.
      labels: class names, in the order of the labels 0 … C − 1; as submitted.
      f1: whether F1 of class 1 is reported beside accuracy.
      tests: GLUE's labelled validation set, of which figures are, by name of what is submitted: the split with labels
        and the one without.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    f1: bool = False
    tests: tuple[tuple[str, str, str], ...] = ()


def _binary(*columns: str, submitted: str, f1: bool = False, labels: tuple[str, ...] = ("0", "1")) -> Task:
    return Task(columns, labels, f1, ((submitted, "validation", "test"),))


# The five of ProKT's Table 2; names are those of tensorflow-datasets.
TASKS: dict[str, Task] = {
    "sst2": _binary("sentence", submitted="SST-2"),
    "mrpc": _binary("sentence1", "sentence2", submitted="MRPC", f1=True),
    "qqp": _binary("question1", "question2", submitted="QQP", f1=True),
    "mnli": Task(("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), False,
                 (("MNLI-m", "validation_matched", "test_matched"),
                  ("MNLI-mm", "validation_mismatched", "test_mismatched"))),
    "qnli": _binary("question", "sentence", submitted="QNLI", labels=("entailment", "not_entailment")),
}
"""The classification tasks of GLUE by name."""


class Examples(NamedTuple):
    """Sentences, the second ones of pairs or None, and labels, −1 where they are not known."""

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray

    @property
    def size(self) -> int:
        """How many examples there are."""
        return len(self.first)

    def take(self, indices: Sequence[int] | np.ndarray) -> Examples:
        """The examples at `indices`, in their order."""
        second = None if self.second is None else tuple(self.second[i] for i in indices)
        return Examples(tuple(self.first[i] for i in indices), second, self.labels[indices])


class TextTask(NamedTuple):
    """The examples of a task.

    Attributes:
      name: of the data.
      train, dev: dev chooses.
      tests: by name; figures are of these.
      unlabelled: by the name under which their classes are submitted.
      labels: class names.
      f1: as `Task`.
      about: what a run's manifest records.
    """

    name: str
    train: Examples
    dev: Examples
    tests: dict[str, Examples]
    unlabelled: dict[str, Examples]
    labels: tuple[str, ...]
    f1: bool
    about: dict[str, Any]

    @property
    def pair(self) -> bool:
        """Whether an example is two sentences."""
        return self.train.second is not None


def read_glue(name: str, dev_size: int, data_dir: str | None = None, seed: int = 0) -> TextTask:
    """A task of GLUE, prepared by tensorflow-datasets on the local disk.

    The labelled validation sets are the tests, since GLUE's own test labels are not public; dev is a part of train.

    Args:
      name: in `TASKS`.
      dev_size: examples of train that `seed` picks.
      data_dir: of tensorflow-datasets; its default one if None.

    Raises:
      ValueError: for an unknown name, data that are not there, or a dev_size out of range.
    """
    import tensorflow_datasets as tfds

    if name not in TASKS:
        raise ValueError(f"the tasks of GLUE are {sorted(TASKS)}; received {name!r}.")
    task = TASKS[name]

    def examples(split: str) -> Examples:
        try:
            rows = list(tfds.as_numpy(tfds.load(f"glue/{name}", split=split, data_dir=data_dir, download=False)))
        except (tfds.core.DatasetNotFoundError, AssertionError, ValueError, OSError) as error:
            raise ValueError(f"tensorflow-datasets has no prepared glue/{name}, split {split!r}, in "
                             f"{data_dir or 'its default directory'}: {error}") from error
        rows.sort(key=lambda row: int(row["idx"]))  # on disk they are shuffled; submissions are in GLUE's order
        columns = [tuple(row[column].decode() for row in rows) for column in task.columns]
        return Examples(columns[0], columns[1] if len(columns) > 1 else None,
                        np.array([row["label"] for row in rows], np.int32))

    train, dev = _split(examples("train"), dev_size, seed)
    return TextTask(f"glue/{name}", train, dev, {name: examples(split) for name, split, _ in task.tests},
                    {name: examples(split) for name, _, split in task.tests}, task.labels, task.f1,
                    {"name": f"glue/{name}", "dev_size": dev_size, "split_seed": seed})


PARTS = {"train": ("train",), "dev": ("valid", "dev"), "test": ("test",)}
HEADER = ("label", "sentence", "sentence2")


def read_tsv_folder(path: str | os.PathLike[str], dev_size: int = 0, seed: int = 0, f1: bool = False) -> TextTask:
    """A task from train.tsv, valid.tsv (or dev.tsv) and test.tsv of a folder: label, sentence, and a second sentence of
    pairs, separated by tabs. A first line whose first column is "label" is a header. Classes are the labels in train,
    sorted; numbers by value.

    Args:
      path: the folder.
      dev_size: examples of train that `seed` picks for dev, where there is no file of dev; else 0.
      f1: whether F1 of the second class is reported.

    Raises:
      ValueError: for files that are not there, naming file and line for what is not readable; a label of dev or test
        that train has not.
    """
    folder = pathlib.Path(path)
    found: dict[str, tuple[pathlib.Path, list[list[str]]]] = {}
    for part, names in PARTS.items():
        files = [folder / f"{name}.tsv" for name in names if (folder / f"{name}.tsv").is_file()]
        if files:
            found[part] = files[0], read_rows(files[0])
    missing = [part for part in PARTS if part not in found and not (part == "dev" and dev_size)]
    if missing or ("dev" in found and dev_size):
        raise ValueError(f"{str(folder)!r} must hold train.tsv, valid.tsv and test.tsv, or with a dev_size no "
                         f"valid.tsv; missing: {missing}, dev_size: {dev_size!r}.")
    widths = {len(row) for _, rows in found.values() for row in rows}
    if len(widths) > 1:
        raise ValueError(f"all lines of {str(folder)!r} must have a label and one sentence, or a label and two; "
                         f"received {sorted(width - 1 for width in widths)} sentences.")
    file, rows = found["train"]
    if len({row[0] for row in rows}) > max(len(rows) // 2, 10):
        raise ValueError(f"{str(file)!r} has almost as many labels as lines: the label is the first column, the "
                         f"sentence the second; line 1 is {rows[0]}.")
    labels = sorted({row[0] for row in rows}, key=lambda label: (not label.isdecimal(), int(label)
                                                                             if label.isdecimal() else 0, label))
    parts = {part: examples_of(file, rows, labels) for part, (file, rows) in found.items()}
    if dev_size:
        parts["train"], parts["dev"] = _split(parts["train"], dev_size, seed)
    return TextTask(folder.name, parts["train"], parts["dev"], {"test": parts["test"]}, {}, tuple(labels), f1,
                    {"name": folder.name, "dev_size": parts["dev"].size, "split_seed": seed})


def read_rows(file: pathlib.Path) -> list[list[str]]:
    """The columns of every line: label, sentence, and of pairs the second sentence; without the header.

    Raises:
      ValueError: for no file, naming the line for what is not so.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    lines = decoded_lines(file.read_bytes(), str(file))
    rows = [line.split("\t") for line in lines]
    header = bool(rows) and rows[0][0].lower() == HEADER[0]
    for number, row in enumerate(rows, 1):
        if not 2 <= len(row) <= 3 or not all(column.strip() for column in row):
            raise ValueError(f"{str(file)!r}, line {number}: a line is label, tab, sentence, and for pairs tab, "
                             f"sentence; received {len(row)} columns, "
                             f"{'one of them empty' if not all(c.strip() for c in row) else 'none empty'}.")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{str(file)!r} has lines of one sentence and lines of two.")
    rows = rows[header:]
    if not rows:
        raise ValueError(f"{str(file)!r} holds no example.")
    return rows


def examples_of(file: pathlib.Path, rows: list[list[str]], labels: Sequence[str]) -> Examples:
    """The examples of a file's rows.

    Raises:
      ValueError: for a label that is not among `labels`.
    """
    number_of = {label: number for number, label in enumerate(labels)}
    for row in rows:
        if row[0] not in number_of:
            raise ValueError(f"{str(file)!r} has the label {row[0]!r}, which no train example has: {list(labels)}.")
    return Examples(tuple(row[1] for row in rows), tuple(row[2] for row in rows) if len(rows[0]) > 2 else None,
                    np.array([number_of[row[0]] for row in rows], np.int32))


def _split(train: Examples, dev_size: int, seed: int) -> tuple[Examples, Examples]:
    if not 0 < dev_size < train.size:
        raise ValueError(f"dev_size must be from 1 to {train.size - 1}, the train examples less one; received "
                         f"{dev_size!r}.")
    order = np.random.default_rng(seed).permutation(train.size)
    return train.take(np.sort(order[dev_size:])), train.take(np.sort(order[:dev_size]))
