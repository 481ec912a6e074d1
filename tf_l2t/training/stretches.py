"""Trains a student in stretches of steps, looks at it after each and keeps it, and goes on where it was stopped."""

from __future__ import annotations

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.files import write_whole
from tf_l2t.students.loading import DamagedNetworkError, load_network
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.errors import StudentDivergedError, TerminatedError
from tf_l2t.training.pace import Pace, every_few_seconds, tell
from tf_l2t.training.termination import deferred_termination

Record = dict[str, Any]
SECONDS = 10.0  # between two lines about a stretch
_NOTHING: dict[str, Any] = {"steps": 0, "stop": 0, "seconds": 0.0, "sums": []}


def fit_in_stretches(fit: Callable[..., Record], look: Callable[[Record, list[Record]], Record],
                     kept: Callable[[list[Record]], Any], *, checkpoints: Checkpoints, num_steps: int, every: int,
                     verbose: int = 1) -> list[Record]:
    """Runs `num_steps` steps, `every` of them at a time; everything is kept before the first and behind each stretch.

    A training that is stopped at any moment loses the stretch that it is in, and goes on behind the one before. SIGTERM
    waits for the end of a step, of a stretch that has one step left, or of the look that is going on; then nothing is
    lost.

    Args:
      fit: (first, stop, heard, again) -> what training in the steps first … stop − 1 logs, of which the callbacks
        `heard` hear. Where it is done `again`, they alone do: a stretch whose loss is not finite is gone through once
        more, to find the step where that began.
      look: (record, those before) -> the record with what is found out about the student at this point. It may keep
        it, such as the best so far; where it does, again if it was stopped at that.
      kept: hears of all records, once they are kept.
      checkpoints: of all that `fit` changes.
      num_steps: of the whole training.
      every: steps of a stretch.
      verbose: 1 for a line at every look, and every ten seconds where looks are further apart, with the time left; 2
        for the same as JSON; 0 for silence.

    Returns:
      One record of every stretch: `step`, its last one, what `fit` and `look` found, and `seconds`, of `fit`.

    Raises:
      ValueError: if the training that is kept is longer than num_steps.
      StudentDivergedError: if anything of a record, or of what is to be kept, is not finite; what was kept before
        stays.
      TerminatedError: after SIGTERM.
      UnwritableError: if a state cannot be written; those before it are kept.
    """
    there = checkpoints.restore() or {}
    records: list[Record] = there.get("records", [])
    within: dict[str, Any] = there.get("within") or _NOTHING  # what there is of a stretch that was ended
    first = records[-1]["step"] if records else 0
    done = first + within["steps"]
    if done > num_steps or (done == num_steps and within["steps"]):
        raise ValueError(f"{checkpoints} has {done} steps already; num_steps={num_steps} is fewer.")
    if records:
        kept(records)  # it may have been stopped before it heard
    elif not there:
        checkpoints.save(0, {"records": []})
    pace = Pace(num_steps, done)
    say = every_few_seconds(lambda step, total, left: tell({"student steps": step, "total": total}, verbose, left),
                            seconds=SECONDS)
    with deferred_termination() as end_if_told:
        while first < num_steps:
            begin, stop = first + within["steps"], min(within["stop"] or first + every, num_steps)
            steps = _Steps(begin, stop, within["sums"], end_if_told, lambda step: say(step, num_steps, done))
            started = time.perf_counter() - within["seconds"]
            try:
                record = {"step": stop, **fit(begin, stop, [steps], False)}
            except TerminatedError:
                sums = steps.sums()
                finite = all(np.isfinite(value).all() for values in sums for value in values)
                if finite and checkpoints.are_finite():  # or else it is gone through again, to say where that began
                    checkpoints.save(begin + steps.done, {"records": records, "within": {
                        "steps": begin + steps.done - first, "stop": stop, "seconds": time.perf_counter() - started,
                        "sums": sums}})
                raise
            record["seconds"] = round(time.perf_counter() - started, 3)
            if not is_finite(record):
                raise diverged("a loss is", record, begin, first_not_finite(fit, checkpoints, begin, stop))
            if not checkpoints.are_finite():  # of the last step, or of whatever losses do not show
                raise diverged("weights are", record, begin)
            record = look(record, records)
            if not is_finite(record):
                raise diverged("a number is", record, begin)
            records.append(record)
            checkpoints.save(stop, {"records": records})
            kept(records)
            tell(record, verbose, pace.left(stop))
            first, within = stop, _NOTHING
            end_if_told()
    return records


def is_finite(record: Record) -> bool:
    """Whether all of its numbers are."""
    return all(math.isfinite(value) for value in record.values() if isinstance(value, float))


class _Steps(keras.callbacks.Callback):
    """Counts a stretch's steps as they are done, and ends it behind one if told to, where at least two are left: Keras
    reads the means of a stretch of one step before its sums could be added to.

    Args:
      first, stop: the steps first … stop − 1.
      sums: `sums()` of what is in the stretch already, [] at its beginning; Keras begins anew with every `fit`.
      end_if_told: raises `TerminatedError`.
      told: hears behind which step the training is.
    """

    def __init__(self, first: int, stop: int, sums: list[Any], end_if_told: Callable[[], None],
                 told: Callable[[int], None]):
        super().__init__()
        self._first, self._stop, self._sums, self._end_if_told, self._told = first, stop, sums, end_if_told, told
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.done:  # not before: Keras builds metrics at the first batch
            self._add()
        self.done = batch + 1
        if self._first + self.done < self._stop:
            self._told(self._first + self.done)
        if self._first + self.done < self._stop - 1:
            self._end_if_told()

    def _add(self) -> None:
        for metric, values in zip(self.model.metrics, self._sums, strict=True) if self._sums else ():
            for variable, value in zip(metric.variables, values, strict=True):
                variable.assign_add(value)

    def sums(self) -> list[Any]:
        """Those of which the metrics are means, JSON values; float32 comes back from them as it was."""
        return [[variable.numpy().tolist() for variable in metric.variables] for metric in self.model.metrics]


class _FirstNotFinite(keras.callbacks.Callback):
    """The first batch, counted from 1, behind which a mean of the logs is not finite; None if there is none."""

    batch: int | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.batch is None and not is_finite(logs or {}):
            self.batch = batch + 1


def first_not_finite(fit: Callable[..., Record], checkpoints: Checkpoints, first: int, stop: int) -> int | None:
    """The step, counted from 1, of those behind `first` whose loss is the first that is not finite."""
    found = _FirstNotFinite()
    if checkpoints.restore(first) is None:
        return None
    fit(first, stop, [found], True)
    return None if found.batch is None else first + found.batch


def diverged(what: str, record: Record, first: int, step: int | None = None) -> StudentDivergedError:
    """The error of a record that is not finite; `step` is that where it was so for the first time, if one is known."""
    where = "" if step is None else f", from step {step} on"
    return StudentDivergedError(f"{what} not finite in the steps {first + 1} to {record['step']}{where}: {record}. "
                                f"Lower the learning rate, or bound the gradient. What is kept is from step {first}.")


class BestWeights:
    """The weights of a network when it was best, among what a training keeps; a file of them may be damaged.

    Args:
      network: whose they are.

    Attributes:
      variables: that hold them.
    """

    def __init__(self, network: keras.Model):
        self._network = network
        self.variables = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in network.weights]

    def keep(self) -> None:
        """Those that the network has now."""
        for held, variable in zip(self.variables, self._network.weights, strict=True):
            held.assign(variable)

    @contextlib.contextmanager
    def worn(self) -> Iterator[None]:
        """Within it the network has them; then its own again."""
        own = [tf.convert_to_tensor(variable) for variable in self._network.weights]
        try:
            self._assign(self.variables)
            yield
        finally:
            self._assign(own)

    def write(self, file: pathlib.Path) -> None:
        """Writes the network with them, if the file does not hold it. Keras' files have their date in them, so that one
        that is written anew is another."""
        try:
            there = [variable.numpy() for variable in load_network(file).weights]
        except DamagedNetworkError:
            there = []
        if len(there) != len(self.variables) or not all(map(np.array_equal, there, self.variables)):
            with self.worn():
                write_whole(file, self._network.save)

    def _assign(self, values: Iterable[Any]) -> None:
        for variable, value in zip(self._network.weights, values, strict=True):
            variable.assign(value)


def everything(model: keras.Model) -> Iterable[Any]:
    """All that training a compiled model changes: weights, states of random layers, and its optimizers' variables."""
    yield from model.variables
    for value in vars(model).values():
        if isinstance(value, keras.optimizers.Optimizer):
            yield from value.variables
