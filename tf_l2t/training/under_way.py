"""A student of a table that is under way, on disk: a table that was stopped goes on within it."""

from __future__ import annotations

import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.errors import ForeignStatesError, TerminatedError

SECONDS = 30.0  # of a student's time that a stop may cost


class UnderWay:
    """What a student needs to go on from one of its looks.

    It is kept every `SECONDS`, at the next look, and at the look behind a SIGTERM; a student that is through before
    never touches the disk.

    Args:
      folder: of `Checkpoints`, made at the first state; for one student after another.
      identity: as for `Checkpoints`; `student`, one of its keys, says which one it is.
      end_if_told: raises `TerminatedError` after SIGTERM.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, Any], end_if_told: Callable[[], None]):
        self._folder, self._identity, self._end_if_told = pathlib.Path(folder), identity, end_if_told
        self._held: list[tf.Variable] = []
        self._states: Checkpoints | None = None
        self._kept_at = time.monotonic()

    def restore(self, values: Any) -> tuple[Any, dict[str, Any] | None]:
        """The values and the record of the newest look that was kept; the given values, and None, where none was.

        Raises:
          ForeignStatesError: if it is of another table's student.
        """
        if not any(self._folder.glob("state-*.json")):
            return values, None
        states = self._opened(values)
        try:
            record = states.restore()
        except ForeignStatesError as error:
            if error.differ != ["student"]:
                raise
            record = None  # of one who was through
        if record is None:
            self.forget()
            return values, None
        return tf.nest.pack_sequence_as(values, [tf.convert_to_tensor(held) for held in self._held]), record

    def look(self, values: Any, record: dict[str, Any]) -> None:
        """Hears of a look: all that the student has, and a record, JSON values, with its `step`.

        Raises:
          TerminatedError: after SIGTERM, when they are kept.
          UnwritableError: if they cannot be.
        """
        try:
            self._end_if_told()
        except TerminatedError:
            self._keep(values, record)
            raise
        if time.monotonic() - self._kept_at > SECONDS:
            self._keep(values, record)

    def forget(self) -> None:
        """What was kept is not asked for any more."""
        for file in [*self._folder.glob("state-*"), *self._folder.glob("checkpoint")]:
            if file.is_dir():  # of TensorFlow's, of a state that was not written to its end
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
        self._states = None

    def _keep(self, values: Any, record: dict[str, Any]) -> None:
        states = self._opened(values)
        for held, value in zip(self._held, tf.nest.flatten(values), strict=True):
            held.assign(value)
        states.save(record["step"], record)
        self._kept_at = time.monotonic()

    def _opened(self, values: Any) -> Checkpoints:
        if self._states is None:
            self._held = [tf.Variable(value, trainable=False) for value in tf.nest.flatten(values)]
            self._states = Checkpoints(self._folder, self._held, self._identity, keep=2)
        return self._states
