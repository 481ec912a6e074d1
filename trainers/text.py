"""Text configs turned into objects: tasks as arrays of word pieces, networks of them."""

from __future__ import annotations

import functools
import inspect
import json
import pathlib
import types
from typing import Any, NamedTuple

import keras
import ml_collections
import numpy as np

from tf_l2t.data import ArrayPair, Splits
from tf_l2t.students import bert_classifier, bilstm
from tf_l2t.text import Examples, TextTask, WordPieces, load_encoder, read_glue, read_tsv_folder
from tf_l2t.text.tasks import examples_of, read_rows
from tf_l2t.training.workdir import MANIFEST
from trainers import command, fields

NETWORKS: dict[str, Any] = {"bilstm": bilstm, "bert": bert_classifier}


class TextData(NamedTuple):
    """A task in word pieces.

    Attributes:
      task: its text.
      splits: token ids [examples, length] and labels; the test part is the first of the tests.
      tests: by name.
      wordpieces: the vocabulary.
    """

    task: TextTask
    splits: Splits
    tests: dict[str, ArrayPair]
    wordpieces: WordPieces

    def encode(self, examples: Examples) -> np.ndarray:
        return self.wordpieces.encode(examples, self.splits.train.x.shape[1])


def load_text(config: ml_collections.ConfigDict) -> TextData:
    """The data of config.data in the word pieces of config.encoder; configs of the same data get the same arrays."""
    if not config.encoder:
        raise ValueError("config.encoder must name a directory of a BERT encoder, whose vocabulary the networks share; "
                         "received none.")
    return _load_text(json.dumps(command.plain(config.data)), config.encoder)


@functools.lru_cache(maxsize=3)
def _load_text(described: str, encoder: str) -> TextData:
    data = types.SimpleNamespace(**json.loads(described))
    if data.name == "tsv":
        task = read_tsv_folder(data.path, data.dev_size, data.split_seed, data.f1)
    elif data.name.startswith("glue/"):
        task = read_glue(data.name.removeprefix("glue/"), data.dev_size, data.path or None, data.split_seed)
    else:
        raise ValueError(f"config.data.name must be 'tsv' or 'glue/TASK'; received {data.name!r}.")
    if data.augmented:
        file = pathlib.Path(data.augmented)
        more = examples_of(file, read_rows(file), task.labels)
        if (more.second is not None) != task.pair:
            raise ValueError(f"config.data.augmented={data.augmented!r} must have as many sentences a line as the "
                             "task's own train examples.")
        leaked = held_out(task) & sentences_of(more)
        if leaked:
            raise ValueError(f"config.data.augmented={data.augmented!r} holds {len(leaked)} examples of dev, such as "
                             f"{min(leaked)!r}: make it with trainers.augment and this config.")
        task = task._replace(train=more)
    wordpieces = load_encoder(encoder).wordpieces
    train, dev = (_pair(wordpieces, part, data.length) for part in (task.train, task.dev))
    tests = {name: _pair(wordpieces, part, data.length) for name, part in task.tests.items()}
    about = {**task.about, "length": data.length, "wordpieces": wordpieces.fingerprint}
    splits = Splits(train, dev, next(iter(tests.values())), len(task.labels), task.name, about, None, task.labels)
    return TextData(task, splits, tests, wordpieces)


def sentences_of(examples: Examples) -> set[tuple[str, ...]]:
    """Every example's sentences, words apart by one space."""
    columns = [examples.first, *([] if examples.second is None else [examples.second])]
    return {tuple(" ".join(sentence.split()) for sentence in row) for row in zip(*columns, strict=True)}


def held_out(task: TextTask) -> set[tuple[str, ...]]:
    """The sentences of dev that train does not have."""
    return sentences_of(task.dev) - sentences_of(task.train)


def _pair(wordpieces: WordPieces, examples: Examples, length: int) -> ArrayPair:
    return ArrayPair(wordpieces.encode(examples, length), examples.labels)


def network(config: ml_collections.ConfigDict, part: ml_collections.ConfigDict, where: str, seed: int) -> keras.Model:
    """A new network, which the config names at `where`, its `part`; of "bert" the first layers of its encoder, or all.

    Raises:
      ValueError: for an unknown one, options that it does not take, an encoder of another vocabulary, or one that does
        not take texts as long as config.data.length.
    """
    data = load_text(config)
    if part.name not in NETWORKS:
        raise ValueError(f"{where}.name must be one of {sorted(NETWORKS)}; received {part.name!r}.")
    options, build = dict(part.options), NETWORKS[part.name]
    known = [name for name in inspect.signature(build).parameters
             if name not in ("backbone", "vocabulary_size", "num_classes", "pair", "special")]
    if not set(options) <= set(known):
        raise ValueError(f"{where}.options: {part.name!r} takes {known}; received {sorted(options)}.")
    keras.utils.set_random_seed(seed)
    special, num_classes = data.wordpieces.special, data.splits.num_classes
    if part.name == "bilstm":
        inputs: tuple[Any, ...] = (data.wordpieces.size, num_classes, data.task.pair)
    else:
        encoder = load_encoder(part.encoder or config.encoder)
        if encoder.wordpieces.fingerprint != data.wordpieces.fingerprint:
            raise ValueError(f"{where}.encoder={part.encoder!r} has another vocabulary than config.encoder="
                             f"{config.encoder!r}.")
        longest = encoder.backbone.max_sequence_length
        if config.data.length > longest:
            raise ValueError(f"config.data.length={config.data.length} is more than the {longest} positions of the "
                             f"encoder in {part.encoder or config.encoder!r}.")
        inputs = (encoder.backbone, num_classes)
    with fields.refused_types(f"{where}.options={options} are not of the kinds that the network takes"):
        return build(*inputs, special=special, **options)


def check_wordpieces(config: ml_collections.ConfigDict, folder: pathlib.Path, what: str) -> None:
    """Raises ValueError if a run in `folder`, which made `what`, was of another vocabulary than the config's: the same
    token ids would be other words. Of a network without a run's manifest beside it nothing is known."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return
    try:
        then = json.loads(manifest.read_text(encoding="utf-8"))["data"].get("wordpieces")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{str(manifest)!r} is damaged: {error!r}.") from error
    if then != load_text(config).wordpieces.fingerprint:
        raise ValueError(f"{what} in {str(folder)!r} was trained with {'another' if then else 'no'} vocabulary"
                         f"{' than' if then else '; this one is'} that of config.encoder={config.encoder!r}.")
