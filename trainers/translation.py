"""From a translation config to text, subwords, students and their training."""

from __future__ import annotations

import functools
import json
import pathlib
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from tf_l2t.data import arrays_digest
from tf_l2t.training.rates import learning_rate
from tf_l2t.translation import (
    Decoding,
    EncodedText,
    ParallelText,
    ReportedBleu,
    Subwords,
    TextForm,
    TextSplits,
    TextTranslator,
    check_language,
    embedded_help,
    encode_pairs,
    fingerprint,
    iwslt14,
    load_translator,
    read_splits,
    read_translation_tfds,
    read_tsv,
    report_bleus,
    split_text,
)
from tf_l2t.translation.subwords import check_line
from trainers import command, fields


def load_text(config: ml_collections.ConfigDict) -> TextSplits:
    """The text of config.data; configs of the same data get the same.

    Raises:
      ValueError: for an unknown name, or as the readers.
    """
    return _load_text(json.dumps(command.plain(config.data)))


@functools.lru_cache(maxsize=2)
def _load_text(described: str) -> TextSplits:
    data = types.SimpleNamespace(**json.loads(described))
    kind, _, name = data.name.partition(":")
    if kind in ("parallel", "tsv", "iwslt14") and not data.path:
        raise ValueError(f"config.data.name={data.name!r} needs a path: set --config.data.path.")
    if kind == "parallel":
        return read_splits(data.path, data.source, data.target)
    if kind == "iwslt14":
        return iwslt14(data.path, data.variant, data.source, data.target)
    if kind == "tfds" and name:
        return read_translation_tfds(name, data.path or None, (data.source, data.target))
    if kind in ("tsv", "libreoffice_help"):
        pool = read_tsv(data.path) if kind == "tsv" else of_help(data.source, data.target)
        return split_text(pool, data.dev_size, data.test_size, data.split_seed)
    raise ValueError("config.data.name must be 'parallel', 'tsv', 'iwslt14', 'libreoffice_help' or 'tfds:NAME'; "
                     f"received {data.name!r}.")


def of_help(source: str, target: str) -> ParallelText:
    """The embedded text in either direction.

    Raises:
      ValueError: for other languages.
    """
    if sorted((source, target)) != ["de", "en"]:
        raise ValueError("'libreoffice_help' is German and English: config.data.source and target must be 'de' and "
                         f"'en', or the other way round; received {source!r} and {target!r}.")
    pool = embedded_help()
    return pool if source == "de" else pool.swapped()


def train_subwords(config: ml_collections.ConfigDict, text: TextSplits) -> Subwords:
    """The joint subwords of the train side; no other text is looked at."""
    for index, pair in enumerate(zip(text.train.source, text.train.target, strict=True)):
        for side, line in zip(("source", "target"), pair, strict=True):
            check_line(line, text.train.place(side, index))
    return Subwords.train((*text.train.source, *text.train.target), config.data.vocabulary, config.data.lower)


def describe(text: TextSplits) -> dict[str, Any]:
    return {**text.about, "fingerprint": fingerprint(text)}


def student_fn(config: ml_collections.ConfigDict, vocabulary_size: int) -> Callable[[], Any]:
    """Builds config.student.

    Raises:
      ValueError: for an unknown student, or options that it does not take.
    """
    from tf_l2t.students import TRANSLATORS

    if config.student.name not in TRANSLATORS:
        raise ValueError(f"config.student.name must be one of {sorted(TRANSLATORS)}; received {config.student.name!r}.")
    def build() -> Any:
        with fields.refused_types(f"config.student.options of {config.student.name!r}"):
            return TRANSLATORS[config.student.name](vocabulary_size, **dict(config.student.options))

    return build


def new_student(config: ml_collections.ConfigDict, vocabulary_size: int) -> Any:
    """A new student of config.student, its weights and whatever it will draw at random by config.seed.

    Raises:
      ValueError: as `student_fn`.
    """
    from tf_l2t.students import FunctionalTranslator

    return FunctionalTranslator(student_fn(config, vocabulary_size)).new_model(config.seed)


def student_optimizer(config: ml_collections.ConfigDict, num_steps: int | None = None) -> Any:
    """The Keras optimizer of config.training, over its steps or the given ones.

    Raises:
      ValueError: for an unknown name, or momentum for Adam.
    """
    import keras

    training = config.training
    rate = learning_rate(training.learning_rate, training.decay, num_steps or training.num_steps)
    options = {"global_clipnorm": training.clip_norm} if training.clip_norm else {}
    if training.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=training.momentum, **options)
    if training.optimizer != "adam" or training.momentum:
        raise ValueError("config.training.optimizer must be 'sgd' or 'adam', the latter with momentum=0; received "
                         f"{training.optimizer!r}, {training.momentum!r}.")
    return keras.optimizers.Adam(rate, **options)


def run_steps(config: ml_collections.ConfigDict) -> int:
    """The steps of a run by config.training.

    Raises:
      ValueError: if it is to stop where it is not.
    """
    training = config.training
    if not 0 <= training.stop_at <= training.num_steps:
        raise ValueError("config.training.stop_at is one of the run's num_steps steps, or 0 for all; received "
                         f"{training.stop_at!r}, {training.num_steps!r}.")
    return training.stop_at or training.num_steps


def decoding(config: ml_collections.ConfigDict) -> Decoding:
    return Decoding(**command.plain(config.decoding))


class Scored(NamedTuple):
    """`report_bleus`, the translations, and the time that these took."""

    bleus: dict[str, ReportedBleu]
    lines: list[str]
    seconds: float


class Scores:
    """BLEUs of a student's translations of a text.

    Args:
      text: with the references.
      translations: how to translate.
    """

    def __init__(self, text: ParallelText, translations: TextTranslator):
        self._text, self._translations = text, translations

    def __call__(self) -> Scored:
        started = time.perf_counter()
        found = self._translations(self._text.source)
        seconds = time.perf_counter() - started
        form, lower = self._translations.form, self._translations.subwords.lower
        return Scored(report_bleus(found, self._text.target, form.target, bool(form.tokenized), lower), found, seconds)


def form_of(config: ml_collections.ConfigDict, text: TextSplits) -> TextForm:
    """How the text is written.

    Raises:
      ValueError: for an unknown way of writing, or a language whose BLEU cannot be measured here.
    """
    if config.data.tokenized not in ("", "moses"):
        raise ValueError("config.data.tokenized must be '', plain text, or 'moses'; received "
                         f"{config.data.tokenized!r}.")
    check_language(config.data.target)
    moses = "moses" in (config.data.tokenized, text.about.get("tokenized"))
    return TextForm(config.data.source, config.data.target, "moses" if moses else "", bool(text.about.get("lower")))


def start_of(config: ml_collections.ConfigDict) -> TextTranslator | None:
    """The translator from which config.training starts, if it starts from one: config.student with its weights.

    Raises:
      ValueError: if there is none, or the config's student or vocabulary is another, or the way its text is written.
    """
    if not config.training.start:
        return None
    start = load_translator(config.training.start)
    if start.subwords.size != config.data.vocabulary:
        raise ValueError(f"config.training.start has a vocabulary of {start.subwords.size}, which is used as it is; "
                         f"set config.data.vocabulary to it. Received {config.data.vocabulary!r}.")
    form = form_of(config, load_text(config))
    if start.form not in (TextForm(), form) or start.subwords.lower != config.data.lower:
        raise ValueError(f"config.training.start translates text of {_written(start.form, start.subwords.lower)}; the "
                         f"config's is {_written(form, config.data.lower)}. Set config.data.source, target, tokenized "
                         "and lower to what it was trained on.")
    student = new_student(config, start.subwords.size)
    shapes = [[tuple(w.shape) for w in model.trainable_variables] for model in (student, start.model)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"config.student is not the student of config.training.start, a {start.model.name!r}; "
                         f"received {config.student.name!r} with {dict(config.student.options)}.")
    for own, given in zip(student.trainable_variables, start.model.trainable_variables, strict=True):
        own.assign(given)
    return TextTranslator(student, start.subwords, start.decoding, start.form)


def _written(form: TextForm, lower: bool) -> str:
    return (f"{form.source!r} to {form.target!r}, tokenized={form.tokenized!r}, "
            f"{'lower case' if form.lower or lower else 'upper and lower case'}")


def status_of(config: ml_collections.ConfigDict, dev: EncodedText) -> dict[str, Any]:
    """Of what a student's status is made: pairs, how many of them, and after how many steps."""
    return {"dev": arrays_digest((dev.source, dev.target)), "sample_size": config.features.sample_size,
            "refresh_every": config.features.refresh_every}


def taught_dev(config: ml_collections.ConfigDict, text: TextSplits, subwords: Subwords) -> EncodedText:
    """The dev pairs of a teacher, the same in its training and in its use: on all of them M is measured, of the first
    the student's status is made. None is left out: longer ones are cut after config.data.max_length subwords."""
    return encode_pairs(subwords, sample(text.dev, config.teacher_training.dev_size), config.data.max_length,
                        too_long="truncate")


def sample(text: Any, size: int, seed: int = 0) -> Any:
    """`size` pairs drawn by `seed`, all for 0 or more than there are."""
    if not 0 < size < text.size:
        return text
    return text.take(np.sort(np.random.default_rng(seed).permutation(text.size)[:size]))


def write_examples(path: pathlib.Path, text: Any, found: list[str], count: int = 20, seed: int = 0) -> pathlib.Path:
    """Random sources with reference and translation, as text to read."""
    chosen = np.random.default_rng(seed).permutation(text.size)[:count]
    path.write_text("\n".join(f"source       {text.source[i]}\nreference    {text.target[i]}\ntranslation  {found[i]}\n"
                              for i in chosen), encoding="utf-8")
    return path
