"""Trains a student by distillation through Keras `fit`, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_l2t.data import batch_dataset
from tf_l2t.distillation import DistillationTrainer
from tf_l2t.training.errors import StudentDivergedError
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

    Batches are a function of seed and step, and weights, optimizers and random states are in the file: a run that was
    stopped and goes on ends with the same weights, on the same machine, as one that was not.

    Args:
      trainer: not compiled.
      phases: of its method, in order; every one is compiled when it begins.
      batch_fn: (seed, step) -> a batch as the trainer takes it.
      seed: of the batches.
      evaluate_every: steps between two looks.
      dev: (x, y), whose accuracy says which student is the best of the last phase.
      path: a directory for PHASE-STEP.weights.h5, the newest ones, history.json, best.keras, student.keras and
        anchors/. If a run has left them there, this one goes on.
      anchors: how many students to keep on the way, the last one included, as anchors/1.keras and on.
      callbacks: further ones; a look is their epoch.
      verbose: 1 for a line at every look.

    Returns:
      One record of every look: phase, step, the logs of train batches since the last one, those of dev as `val_…`, and
      ms_per_step.

    Raises:
      ValueError: as `check_looks`.
      StudentDivergedError: if a loss is not finite; what was kept before stays.
    """
    looks = check_looks([phase.num_steps for phase in phases], evaluate_every, anchors)
    folder = pathlib.Path(path)
    kept = {math.ceil(i * looks / anchors): i for i in range(1, anchors + 1)}
    history = json.loads((folder / HISTORY).read_text()) if (folder / HISTORY).is_file() else []
    for phase in phases:
        done = [record for record in history if record["phase"] == phase.name]
        whole = math.ceil(phase.num_steps / evaluate_every)
        if done and done[-1] is not history[-1]:
            continue  # a later phase is in the file
        trainer.begin(phase.name)
        phase.compile()
        if done:
            trainer.load_weights(weights_of(folder, done[-1]))
        for look in range(len(done), whole):
            first, stop = look * evaluate_every, min((look + 1) * evaluate_every, phase.num_steps)
            started = time.perf_counter()
            fitted = trainer.fit(batch_dataset(batch_fn, seed, stop, first), initial_epoch=look, epochs=look + 1,
                                 total_epochs=whole, verbose=0, shuffle=False, callbacks=list(callbacks))
            seconds = time.perf_counter() - started
            record: dict[str, Any] = {"phase": phase.name, "step": stop,
                      **{name: float(values[-1]) for name, values in fitted.history.items()},
                      "ms_per_step": round(1000 * seconds / (stop - first), 2)}
            if not trainer.phase.prepares:
                found = trainer.evaluate(*dev, batch_size=500, verbose=0, return_dict=True)
                record |= {f"val_{name}": float(value) for name, value in found.items()}
            if not all(math.isfinite(value) for value in record.values() if isinstance(value, float)):
                raise StudentDivergedError(f"a loss is not finite in the steps {first + 1} to {stop}: {record}. Lower "
                                           f"the learning rate. What is in {str(path)!r} is from step {first}.")
            history.append(record)
            if phase is phases[-1]:
                if record["val_accuracy"] > max((r["val_accuracy"] for r in history[:-1] if r["phase"] == phase.name),
                                                default=-1.0):
                    trainer.student.save(folder / BEST)
                if look + 1 in kept:
                    (folder / ANCHORS).mkdir(exist_ok=True)
                    trainer.student.save(folder / ANCHORS / f"{kept[look + 1]}.keras")
            # The history names the weights from which to go on, so that a run may be stopped between any two files.
            trainer.save_weights(weights_of(folder, record))
            write_json(folder / HISTORY, history)
            if len(history) > 1:
                weights_of(folder, history[-2]).unlink(missing_ok=True)
            if verbose:
                print(", ".join(f"{name} {value:,.4g}" if not isinstance(value, str) else value
                                for name, value in record.items()), flush=True)
    trainer.student.save(folder / LAST)
    return history


def weights_of(folder: pathlib.Path, record: dict[str, Any]) -> pathlib.Path:
    """The file of everything that a run goes on from behind a look."""
    return folder / f"{record['phase']}-{record['step']}.weights.h5"


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
