"""Trains a student in stretches of steps, looks at it after each and keeps it, and goes on where it was stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras

from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.errors import StudentDivergedError
from tf_l2t.training.pace import Pace, tell
from tf_l2t.training.termination import deferred_termination

Record = dict[str, Any]


def fit_in_stretches(fit: Callable[[int, int], Record], look: Callable[[Record, list[Record]], Record],
                     kept: Callable[[list[Record]], Any], *, checkpoints: Checkpoints, num_steps: int, every: int,
                     verbose: int = 1) -> list[Record]:
    """Runs `num_steps` steps, `every` of them at a time; everything is kept behind each such stretch.

    A training that is stopped at any moment loses the stretch that it is in, and goes on behind the one before. SIGTERM
    waits for the end of a stretch.

    Args:
      fit: (first, stop) -> what training in the steps first … stop − 1 logs.
      look: (record, those before) -> the record with what is found out about the student at this point. It may keep
        it, such as the best so far; where it does, again if it was stopped at that.
      kept: hears of all records, once they are kept.
      checkpoints: of all that `fit` changes.
      num_steps: of the whole training.
      every: steps of a stretch.
      verbose: 1 for a line at every look, with the time left; 2 for the same as JSON; 0 for silence.

    Returns:
      One record of every stretch: `step`, its last one, what `fit` and `look` found, and `seconds`, of `fit`.

    Raises:
      ValueError: if the training that is kept is longer than num_steps.
      StudentDivergedError: if anything of a record is not finite; what was kept before stays.
      TerminatedError: after SIGTERM.
      UnwritableError: if a state cannot be written; those before it are kept.
    """
    records: list[Record] = (checkpoints.restore() or {"records": []})["records"]
    done = records[-1]["step"] if records else 0
    if done > num_steps:
        raise ValueError(f"{checkpoints} has {done} steps already; num_steps={num_steps} is fewer.")
    if records:
        kept(records)  # it may have been stopped before it heard
    pace = Pace(num_steps, done)
    with deferred_termination() as end_if_told:
        for first in range(done, num_steps, every):
            stop = min(first + every, num_steps)
            started = time.perf_counter()
            record = {"step": stop, **fit(first, stop)}
            record["seconds"] = round(time.perf_counter() - started, 3)
            check_finite(record, first)
            record = look(record, records)
            check_finite(record, first)
            records.append(record)
            checkpoints.save(stop, {"records": records})
            kept(records)
            tell(record, verbose, pace.left(stop))
            end_if_told()
    return records


def check_finite(record: Record, first: int) -> None:
    """Raises StudentDivergedError if a number of the record of the steps from `first` on is not finite."""
    if not all(math.isfinite(value) for value in record.values() if isinstance(value, float)):
        raise StudentDivergedError(f"a loss is not finite in the steps {first + 1} to {record['step']}: {record}. "
                                   "Lower the learning rate, or bound the gradient. What is kept is from step "
                                   f"{first}.")


def everything(model: keras.Model) -> Iterable[Any]:
    """All that training a compiled model changes: weights, states of random layers, and its optimizers' variables."""
    yield from model.variables
    for value in vars(model).values():
        if isinstance(value, keras.optimizers.Optimizer):
            yield from value.variables
