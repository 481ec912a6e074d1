"""Trains a student by distillation through Keras `fit`, and goes on where it was stopped."""

from __future__ import annotations

import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.data import batch_dataset
from tf_l2t.distillation import DistillationTrainer
from tf_l2t.files import write_whole
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.identity import fit_identity
from tf_l2t.training.stretches import BestWeights, Record, everything, fit_in_stretches
from tf_l2t.training.workdir import write_json

HISTORY, BEST, LAST, ANCHORS = "history.json", "best.keras", "student.keras", "anchors"


class PhasePlan(NamedTuple):
    """A phase of the method and its steps, with what compiles the trainer for them."""

    name: str
    num_steps: int
    compile: Callable[[], None]


def fit_distillation(trainer: DistillationTrainer, phases: Sequence[PhasePlan], batch_fn: Callable[..., Any], *,
                     seed: int, evaluate_every: int, dev: tuple[np.ndarray, np.ndarray],
                     path: str | os.PathLike[str], anchors: int = 0, callbacks: Sequence[keras.callbacks.Callback] = (),
                     verbose: int = 1) -> list[dict[str, Any]]:
    """Fits all phases, looks at dev every so often, and keeps what a run needs to go on.

    Batches are a function of seed and step, and weights, optimizers and random states are kept: a run that was stopped
    and goes on ends with the same weights, on the same machine, as one that was not.

    Args:
      trainer: not compiled.
      phases: of its method, in order; every one is compiled when it begins.
      batch_fn: (seed, step) -> a batch as the trainer takes it.
      seed: of the batches.
      evaluate_every: steps between two looks.
      dev: (x, y), whose accuracy says which student is the best of the last phase.
      path: a directory for checkpoints/PHASE/ (`Checkpoints`), history.json, best.keras, student.keras, anchors/ and
        tensorboard/, of several phases tensorboard/PHASE/: train/ and validation/ as Keras' callback has them, a look
        is an epoch. If a run has left them there, this one goes on.
      anchors: how many students to keep on the way, the last one included, as anchors/1.keras and on.
      callbacks: further ones; a look is their epoch.
      verbose: as for `fit_in_stretches`.

    Returns:
      One record of every look: phase, step, the logs of train batches since the last one, those of dev as `val_…`, and
      ms_per_step.

    Raises:
      ValueError: as `check_looks`.
      ForeignStatesError: if the run there is of another seed, optimizer or first batch.
      StudentDivergedError, TerminatedError, UnwritableError: as `fit_in_stretches`.
    """
    looks = check_looks([phase.num_steps for phase in phases], evaluate_every, anchors)
    folder = pathlib.Path(path)
    kept = {min(math.ceil(i * looks / anchors) * evaluate_every, phases[-1].num_steps): i
            for i in range(1, anchors + 1)}
    history: list[dict[str, Any]] = []
    for phase in phases:
        trainer.begin(phase.name)
        phase.compile()
        history += _fit_phase(trainer, phase, batch_fn, seed, evaluate_every, dev, folder, history,
                              folder / "tensorboard" / (phase.name if len(phases) > 1 else ""), callbacks,
                              kept if phase is phases[-1] else None, verbose)
    write_whole(folder / LAST, trainer.student.save)
    return history


def _fit_phase(trainer: DistillationTrainer, phase: PhasePlan, batch_fn: Callable[..., Any], seed: int,
               evaluate_every: int, dev: tuple[np.ndarray, np.ndarray], folder: pathlib.Path,
               before: list[dict[str, Any]], log_dir: pathlib.Path, callbacks: Sequence[keras.callbacks.Callback],
               anchors: dict[int, int] | None, verbose: int) -> list[dict[str, Any]]:
    """Its records. The last phase has `anchors`, their numbers by steps, and the best student."""
    curves = keras.callbacks.TensorBoard(str(log_dir))
    validation = tf.summary.create_noop_writer() if trainer.phase.prepares else \
        tf.summary.create_file_writer(str(log_dir / "validation"))

    def fit(first: int, stop: int, heard: Sequence[keras.callbacks.Callback], again: bool) -> Record:
        look = first // evaluate_every
        started = time.perf_counter()
        fitted = trainer.fit(batch_dataset(batch_fn, seed, stop, first), initial_epoch=look, epochs=look + 1,
                             total_epochs=math.ceil(phase.num_steps / evaluate_every), verbose=0, shuffle=False,
                             callbacks=[*(() if again else (*callbacks, curves)), *heard])
        seconds = time.perf_counter() - started
        return {"phase": phase.name, **{name: float(values[-1]) for name, values in fitted.history.items()},
                "ms_per_step": round(1000 * seconds / (stop - first), 2)}

    def look(record: dict[str, Any], earlier: list[dict[str, Any]]) -> dict[str, Any]:
        if not trainer.phase.prepares:
            found = trainer.evaluate(*dev, batch_size=500, verbose=0, return_dict=True)
            record = record | {f"val_{name}": float(value) for name, value in found.items()}
            with validation.as_default(step=(record["step"] - 1) // evaluate_every):
                for name, value in found.items():
                    tf.summary.scalar(f"epoch_{name}", value)
            validation.flush()
        if best and record["val_accuracy"] > max((known["val_accuracy"] for known in earlier), default=-1.0):
            best.keep()
            write_whole(folder / BEST, trainer.student.save)
        if anchors and record["step"] in anchors:
            (folder / ANCHORS).mkdir(exist_ok=True)
            write_whole(folder / ANCHORS / f"{anchors[record['step']]}.keras", trainer.student.save)
        return record

    fixed = (trainer.first_teacher, *(() if trainer.teaches else (trainer.teacher, *trainer.anchors)))
    given = {id(variable) for network in fixed if network is not None for variable in network.variables}
    changing = [variable for variable in everything(trainer) if id(variable) not in given]
    best = BestWeights(trainer.student) if anchors is not None else None
    checkpoints = Checkpoints(folder / "checkpoints" / phase.name, [*changing, *(best.variables if best else ())],
                              fit_identity(trainer, batch_fn, seed), keep=2)
    records = fit_in_stretches(fit, look, lambda records: write_json(folder / HISTORY, before + records),
                               checkpoints=checkpoints, num_steps=phase.num_steps, every=evaluate_every,
                               verbose=verbose)
    if best:
        best.write(folder / BEST)
    return records


def check_looks(steps: Sequence[int], evaluate_every: int, anchors: int) -> int:
    """How often the last of the phases is looked at, which have so many steps.

    Raises:
      ValueError: for a number below 1, or more anchors than looks.
    """
    looks = math.ceil(steps[-1] / max(evaluate_every, 1))
    if min(evaluate_every, *steps) < 1 or not 0 <= anchors <= looks:
        raise ValueError("steps and evaluate_every must be at least 1, and anchors no more than looks; received "
                         f"{list(steps)}, {evaluate_every!r}, {anchors!r}.")
    return looks
