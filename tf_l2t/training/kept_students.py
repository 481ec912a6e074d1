"""The students of a table on disk, one by one: a table that was stopped trains none of them again."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.student_runs import StudentRun, Weights
from tf_l2t.training.termination import deferred_termination
from tf_l2t.training.under_way import UnderWay


class KeptStudents:
    """What the students of one way of training came to.

    Of those that choose something a value is kept, of those that are reported the weights, and of the one that is under
    way its looks now and then (`UnderWay`). SIGTERM waits for the next look. Without a folder nothing is kept, and
    nothing waits.

    Args:
      folder: of `Checkpoints`, one for the values, one for the weights and one for what is under way; None for none.
      weights: variables of the shapes of a student's weights, the trainable ones first, twice: those at the end, and
        the best. Students of several ways may share them.
      trainable: how many of the weights are.
      identity: as for `Checkpoints`.
      count: how many students are reported.

    Raises:
      ValueError: if the folder's are students of another training, or another process uses it.
      UnwritableError: if the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, weights: Sequence[tf.Variable], trainable: int,
                 identity: dict[str, Any], count: int):
        self._held, self._trainable = list(weights), trainable
        self._values: dict[str, Any] = {}
        self._value_states = self._run_states = None
        self._folder, self._identity = folder, identity
        if folder is not None:
            self._value_states = Checkpoints(pathlib.Path(folder) / "values", (), identity)
            self._run_states = Checkpoints(pathlib.Path(folder) / "reported", self._held, identity, keep=max(2, count))
            self._values = (self._value_states.restore() or {"values": {}})["values"]

    def value(self, name: str, make: Callable[[UnderWay | None], Any]) -> Any:
        """What `make` gives, a JSON value; it is called if the name's is not there.

        Raises:
          TerminatedError: after SIGTERM, when the value, or the look that came first, is kept.
          UnwritableError: if it cannot be; those before it are.
        """
        if self._value_states is None:
            return make(None)
        if name not in self._values:
            with deferred_termination() as end_if_told:
                under_way = self._under_way(name, end_if_told)
                self._values[name] = make(under_way)
                self._value_states.save(len(self._values), {"values": self._values})
                under_way.forget()
                end_if_told()
        return self._values[name]

    def run(self, number: int, make: Callable[[UnderWay | None], StudentRun]) -> StudentRun:
        """The run of a reported student, 0 and on, which `make` gives; errors as of `value`."""
        if self._run_states is None:
            return make(None)
        record = self._run_states.restore(number)
        if record is not None:
            values = [tf.convert_to_tensor(variable) for variable in self._held]
            last, best = (Weights(tuple(part[:self._trainable]), tuple(part[self._trainable:]))
                          for part in (values[:len(values) // 2], values[len(values) // 2:]))
            return StudentRun(last, best, record["dev_accuracy"], record["best_dev_accuracy"],
                              tuple((step, value) for step, value in record["curve"]))
        with deferred_termination() as end_if_told:
            under_way = self._under_way(f"reported {number}", end_if_told)
            run = make(under_way)
            for variable, value in zip(self._held, tf.nest.flatten([run.last, run.best]), strict=True):
                variable.assign(value)
            self._run_states.save(number, {"dev_accuracy": run.dev_accuracy, "curve": run.curve,
                                           "best_dev_accuracy": run.best_dev_accuracy})
            under_way.forget()
            end_if_told()
        return run

    def _under_way(self, student: str, end_if_told: Callable[[], None]) -> UnderWay:
        assert self._folder is not None
        return UnderWay(pathlib.Path(self._folder) / "under_way", self._identity | {"student": student}, end_if_told)
