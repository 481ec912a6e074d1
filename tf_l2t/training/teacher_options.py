"""How a teacher is trained: what `TeacherTrainer.compile` is told, checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient.replicas import Shards
from tf_l2t.teachers import Teacher
from tf_l2t.training.replicas import Replicas
from tf_l2t.training.validation import JUDGES

DISTRIBUTE = ("rollouts", "batch")


@dataclasses.dataclass
class TeacherOptions:
    """The arguments of `TeacherTrainer.compile` but the optimizer; `engine` has those of `hypergradient`.

    Attributes:
      replicas: all those of the strategy.
      spread: those that the rollouts are spread over.
      shards: those that share a batch, or None.

    Raises:
      ValueError: for a number out of range, or an unknown name.
    """

    objective: Any
    penalty: float
    clip_norm: float | None
    rollouts: int
    rollback: float | None
    judge: str
    adjoint_alarm: float | None
    adjoint_limit: float | None
    max_dropped: int
    strategy: tf.distribute.Strategy | None
    distribute: str
    engine: dict[str, Any]

    def __post_init__(self) -> None:
        for name, value in (("rollouts", self.rollouts), ("max_dropped", self.max_dropped)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; received {value!r}.")
        if not 0 <= self.penalty < np.inf:
            raise ValueError(f"penalty must be at least 0; received {self.penalty!r}.")
        if self.rollback is not None and not 0 <= self.rollback < np.inf:
            raise ValueError(f"rollback must be at least 0, and finite, or None; received {self.rollback!r}.")
        if self.clip_norm is not None and not 0 < self.clip_norm < np.inf:
            raise ValueError(f"clip_norm must be above 0, and finite, or None; received {self.clip_norm!r}.")
        if self.judge not in JUDGES:
            raise ValueError(f"judge must be one of {JUDGES}; received {self.judge!r}.")
        for name, factor in (("adjoint_alarm", self.adjoint_alarm), ("adjoint_limit", self.adjoint_limit)):
            if factor is not None and not 1 < factor < np.inf:
                raise ValueError(f"{name} must be a finite factor above 1, or None; received {factor!r}.")
        if self.distribute not in DISTRIBUTE:
            raise ValueError(f"distribute must be one of {DISTRIBUTE}; received {self.distribute!r}.")
        split = self.strategy is not None and self.distribute == "batch"
        self.replicas = Replicas(self.strategy)
        self.spread = Replicas(None) if split else self.replicas
        self.shards = Shards(self.strategy) if split else None

    def check_fits(self, teacher: Teacher, batch_size: int, student: keras.Model) -> None:
        """Raises ValueError unless the strategy's replicas can train this teacher, with batches of this size and such a
        student."""
        if any(isinstance(v, tf.distribute.DistributedValues) for v in teacher.theta):
            raise ValueError("make the teacher outside of strategy.scope(): the trainer hands its weights to the "
                             "replicas itself.")
        together = [layer.name for layer in student._flatten_layers() if getattr(layer, "synchronized", False)]
        if self.spread.strategy and together:
            raise ValueError(f"layers {together} are synchronised over replicas, each of which has a student of its "
                             'own with distribute="rollouts". Make them with synchronized=False, or split the batches '
                             'of one student: distribute="batch".')
        if self.shards and batch_size % self.shards.count:
            raise ValueError(f"batch_size must be a multiple of the {self.shards.count} replicas that share a batch; "
                             f"received {batch_size!r}.")
        if self.shards and (self.engine["jit"] is True or self.engine["hvp"] == "saved_residuals"):
            raise ValueError('a batch that is split over replicas has no XLA and no saved residuals; received '
                             f'jit={self.engine["jit"]!r}, hvp={self.engine["hvp"]!r}. Leave jit at "auto", and hvp at '
                             '"forward_over_reverse".')

    def identity(self) -> dict[str, Any]:
        """What of it makes a training this one, as JSON values: not how many replicas share the work."""
        objective = self.objective if isinstance(self.objective, str) else \
            getattr(self.objective, "__qualname__", type(self.objective).__name__)
        return {"objective": objective, "penalty": self.penalty, "clip_norm": self.clip_norm,
                "rollouts": self.rollouts, "rollback": self.rollback, "judge": self.judge,
                "adjoint_limit": self.adjoint_limit, "max_dropped": self.max_dropped}
