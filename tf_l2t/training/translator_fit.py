"""Trains a translation student through Keras `fit`, and goes on where it was stopped."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.data import batch_dataset
from tf_l2t.students.translator import previous_tokens
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.identity import fit_identity
from tf_l2t.training.stretches import BestWeights, everything, fit_in_stretches
from tf_l2t.training.workdir import write_json
from tf_l2t.translation.subwords import BOS, PAD

HISTORY = "history.json"

BatchFn = Callable[[Any, Any], Any]


def translation_dataset(batch_fn: BatchFn, seed: int, first: int, stop: int) -> tf.data.Dataset:
    """The batches of the steps first … stop − 1 for Keras `fit`: ((source, previous tokens), target)."""
    def pair(seed: tf.Tensor, step: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
        source, target = batch_fn(seed, step)
        return (source, previous_tokens(target, BOS)), target

    return batch_dataset(pair, seed, stop, first)


def check_any_length(model: keras.Model) -> None:
    """Raises ValueError for a student with `unroll`, as batches are as wide as their sentences."""
    if getattr(model, "unroll", False):
        raise ValueError("the student has unroll=True, which takes sentences of one length, and these batches are of "
                         "several: build it with unroll=False. Only a teacher's training takes it as it is.")


def fit_translator(model: keras.Model, batch_fn: BatchFn, *, seed: int, num_steps: int, evaluate_every: int,
                   evaluate: Callable[[keras.Model], dict[str, float]], best: Callable[[keras.Model], Any],
                   path: str | os.PathLike[str], verbose: int = 1,
                   looked: Callable[[keras.Model, dict[str, float]], Any] = lambda model, record: None
                   ) -> list[dict[str, Any]]:
    """Fits a compiled model for `num_steps` steps, looks at it every so often, and keeps it so that a run can go on.

    Batches are a function of seed and step, and weights, optimizers and random states are kept: a run that was stopped
    and goes on ends with the same weights, on the same machine, as one that was not.

    Args:
      model: compiled; its inputs are (source, previous tokens), its labels the target.
      batch_fn: (seed, step) -> (source, target), such as `bucketed_batches`.
      seed: of the batches.
      num_steps: of the whole run.
      evaluate_every: steps between two looks.
      evaluate: what a look finds; `bleu` is there, and says which model is the best.
      best: writes the model: called whenever it is better than ever before, and at the end with it as it was then.
      path: a directory for checkpoints/ (`Checkpoints`) and history.json. If a run has left them there, this one goes
        on, and `model` becomes as that was.
      verbose: as for `fit_in_stretches`.
      looked: called with the model and the record of every look; twice for one at which the run was stopped.

    Returns:
      One record of every look: step, loss (the mean since the last look), tokens_per_second, and what `evaluate` found.

    Raises:
      ValueError: for a number below 1, a run that is longer than num_steps or a student with
        `unroll`.
      ForeignStatesError: if the run there is of another seed, optimizer or first batch.
      StudentDivergedError, TerminatedError, UnwritableError: as `fit_in_stretches`.
    """
    if num_steps < 1 or evaluate_every < 1:
        raise ValueError("num_steps and evaluate_every must be at least 1; received "
                         f"{num_steps!r}, {evaluate_every!r}.")
    check_any_length(model)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    folder = pathlib.Path(path)

    def fit(first: int, stop: int, heard: Sequence[keras.callbacks.Callback], again: bool) -> dict[str, Any]:
        tokens = _CountTokens(batch_fn)
        started = time.perf_counter()
        fitted = model.fit(translation_dataset(tokens, seed, first, stop), verbose=0, shuffle=False,
                           callbacks=list(heard))
        seconds = time.perf_counter() - started
        return {**{name: float(values[-1]) for name, values in fitted.history.items()},
                "tokens_per_second": round(tokens.total() / seconds)}

    def look(record: dict[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
        started = time.perf_counter()
        record = {**record, **evaluate(model), "evaluation_seconds": round(time.perf_counter() - started, 1)}
        if record["bleu"] > max((known["bleu"] for known in before), default=-np.inf):
            held.keep()
            best(model)
        looked(model, record)
        return record

    held = BestWeights(model)
    records = fit_in_stretches(fit, look, lambda records: write_json(folder / HISTORY, records),
                               checkpoints=Checkpoints(folder / "checkpoints", [*everything(model), *held.variables],
                                                       fit_identity(model, batch_fn, seed)),
                               num_steps=num_steps, every=evaluate_every, verbose=verbose)
    with held.worn():
        best(model)  # what it wrote may have been damaged since
    return records


class _CountTokens:
    """A batch function that counts the target's tokens as they pass."""

    def __init__(self, batch_fn: BatchFn):
        self._batch_fn = batch_fn
        self._total = tf.Variable(0, dtype=tf.int64, trainable=False)

    def __call__(self, seed: Any, step: Any) -> Any:
        source, target = self._batch_fn(seed, step)
        self._total.assign_add(tf.math.count_nonzero(target != PAD))
        return source, target

    def total(self) -> int:
        return int(self._total)
