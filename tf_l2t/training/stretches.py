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
                     again: Callable[[int, int], Record] | None = None, verbose: int = 1) -> list[Record]:
    """Runs `num_steps` steps, `every` of them at a time; everything is kept before the first and behind each stretch.

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
      again: as `fit`, which it is by default, without what others hear of it: a stretch whose loss is not finite is
        gone through once more, step by step, to find the one where that began.
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
    else:
        checkpoints.save(0, {"records": []})
    pace = Pace(num_steps, done)
    with deferred_termination() as end_if_told:
        for first in range(done, num_steps, every):
            stop = min(first + every, num_steps)
            started = time.perf_counter()
            record = {"step": stop, **fit(first, stop)}
            record["seconds"] = round(time.perf_counter() - started, 3)
            if not is_finite(record):
                raise diverged(record, first, first_not_finite(again or fit, checkpoints, first, stop))
            record = look(record, records)
            if not is_finite(record):
                raise diverged(record, first, None)
            records.append(record)
            checkpoints.save(stop, {"records": records})
            kept(records)
            tell(record, verbose, pace.left(stop))
            end_if_told()
    return records


def is_finite(record: Record) -> bool:
    """Whether all of its numbers are."""
    return all(math.isfinite(value) for value in record.values() if isinstance(value, float))


def first_not_finite(fit: Callable[[int, int], Record], checkpoints: Checkpoints, first: int, stop: int) -> int | None:
    """The step, counted from 1, of those behind `first` whose loss is the first that is not finite."""
    checkpoints.restore(first)
    return next((step + 1 for step in range(first, stop) if not is_finite(fit(step, step + 1))), None)


def diverged(record: Record, first: int, step: int | None) -> StudentDivergedError:
    """The error of a record that is not finite; `step` is that where a loss was so for the first time, if one was."""
    where = "" if step is None else f", from step {step} on"
    return StudentDivergedError(f"a loss is not finite in the steps {first + 1} to {record['step']}{where}: {record}. "
                                f"Lower the learning rate, or bound the gradient. What is kept is from step {first}.")


def everything(model: keras.Model) -> Iterable[Any]:
    """All that training a compiled model changes: weights, states of random layers, and its optimizers' variables."""
    yield from model.variables
    for value in vars(model).values():
        if isinstance(value, keras.optimizers.Optimizer):
            yield from value.variables
