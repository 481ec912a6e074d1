"""How far a teacher's training is, and how it is kept on disk."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.teachers import Teacher
from tf_l2t.training.checkpoints import Checkpoints
from tf_l2t.training.replicas import Replicas
from tf_l2t.training.validation import Validation


@dataclasses.dataclass
class Progress:
    """Counts and histories along a training.

    Attributes:
      step: teacher steps that are done.
      stopped: by a callback.
      dropped, dropped_in_a_row, dropped_rollouts: steps, and rollouts, without a finite gradient.
      rollbacks: to the best weights.
      alarmed: whether growing adjoints were warned of.
      initial: what the validation before the first step found.
      validated: the numbers of steps, from 1, after which there was one.
      epochs, history: of the Keras `History`.
    """

    step: int = 0
    stopped: bool = False
    dropped: int = 0
    dropped_in_a_row: int = 0
    dropped_rollouts: int = 0
    rollbacks: int = 0
    alarmed: bool = False
    initial: dict[str, float] = dataclasses.field(default_factory=dict)
    validated: list[int] = dataclasses.field(default_factory=list)
    epochs: list[int] = dataclasses.field(default_factory=list)
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def where(self) -> str:
        return f"in teacher step {self.step}"

    def to_record(self) -> dict[str, Any]:
        """JSON values. What grows with the steps is packed: it is written after each of them."""
        return vars(self) | {"validated": packed(self.validated), "epochs": packed(self.epochs),
                             "history": {name: packed(values) for name, values in self.history.items()}}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Progress:
        return cls(**record | {"validated": unpacked(record["validated"]), "epochs": unpacked(record["epochs"]),
                               "history": {name: unpacked(values) for name, values in record["history"].items()}})


def packed(values: Sequence[Any]) -> str | list[Any]:
    """Integers, or floats, as the Base64 of eight bytes each, behind their type; of other values, a list of them."""
    array = np.asarray(values)
    if array.dtype.kind not in "if":
        return list(values)
    return f"{array.dtype.kind} {base64.b64encode(array.astype(f'<{array.dtype.kind}8').tobytes()).decode()}"


def unpacked(values: str | list[Any]) -> list[Any]:
    """What was packed."""
    if not isinstance(values, str):
        return values
    kind, content = values.split(" ")
    return np.frombuffer(base64.b64decode(content), np.dtype(f"<{kind}8")).tolist()


class TeacherCheckpoints:
    """The states of a teacher's training: its weights, the optimizer's, the best ones, and the `Progress`.

    Args:
      folder: as for `Checkpoints`, which the first process alone uses; None to keep nothing.
      identity: as for `Checkpoints`.
      teacher, optimizer, validation: of the training.
      replicas: whose processes all begin with the state of the first.

    Raises:
      ValueError: if the processes are at different trainings.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, identity: dict[str, Any], teacher: Teacher,
                 optimizer: keras.optimizers.Optimizer, validation: Validation, replicas: Replicas):
        self._validation, self._replicas = validation, replicas
        self._best = [tf.Variable(value, trainable=False) for value in validation.best_weights]
        self._variables = [*teacher.theta, *optimizer.variables, *self._best]
        replicas.check_same(identity)
        self._states = replicas.together(
            lambda: Checkpoints(folder, self._variables, identity) if folder and replicas.is_chief else None)

    def save(self, progress: Progress) -> None:
        for variable, value in zip(self._best, self._validation.best_weights, strict=True):
            variable.assign(value)
        if self._states:
            self._states.save(progress.step, progress.to_record() | {"best": self._validation.best})

    def restore(self) -> Progress:
        """The progress of the newest state, all else put back to it; that of a beginning if there is none."""
        states = self._states
        record = self._replicas.from_chief(self._variables, self._replicas.together(
            lambda: states.restore() if states else None))
        if record is None:
            return Progress()
        self._validation.best = record.pop("best")
        self._validation.best_weights = [variable.numpy() for variable in self._best]
        return Progress.from_record(record)
