"""One step of a teacher's optimizer, from what its students' runs gave."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import AdjointGrowth, Hypergradient, adjoint_growth
from tf_l2t.teachers import Teacher
from tf_l2t.training.faults import fault_of
from tf_l2t.training.teacher_options import TeacherOptions
from tf_l2t.training.teacher_progress import Progress


class Figures(NamedTuple):
    """What a step tells of one rollout; of many, their means. `dropped` is 1 for one that is left out."""

    objective: float
    gradient_norm: float
    adjoint_norm: float
    adjoint_growth: float
    measure: float
    penalty: float
    dropped: float


class TeacherStep:
    """Moves a teacher along the mean of its finite rollouts' clipped gradients, less the penalty's.

    Args:
      teacher, optimizer: moved, and by what.
      options: what the step is like. Where rollouts are spread over processes, the sum of dθ is one all-reduce, and
        the table of their `Figures` another.
    """

    def __init__(self, teacher: Teacher, optimizer: keras.optimizers.Optimizer, options: TeacherOptions):
        self._teacher, self._optimizer, self._replicas = teacher, optimizer, options.spread
        self._clip_norm, self._penalty, self._alarm = options.clip_norm, options.penalty, options.adjoint_alarm
        self._limit = np.inf if options.adjoint_limit is None else options.adjoint_limit
        self._penalty_gradient = tf.function(self._differentiate_penalty, reduce_retracing=True)

    def __call__(self, results: Sequence[tuple[int, Hypergradient, float]], rollouts: int, weight: float,
                 progress: Progress) -> tuple[bool, Figures, int]:
        """Whether there was a finite gradient, what the rollouts were like, and how many had none.

        Args:
          results: (number, result, exact measure) of this process's rollouts.
          rollouts: of all processes.
          weight: how much of λ counts.
        """
        table = np.zeros([rollouts, len(Figures._fields)])
        total = np.zeros(sum(v.shape.num_elements() for v in self._teacher.theta), np.float32)
        for index, result, measure in results:
            norm = float(tf.linalg.global_norm(result.gradient))
            value, pull = self._penalty_of(result)
            fault, growth = fault_of(result), self._growth(result, progress)
            if not fault and self._limit < growth.factor < np.inf:
                fault = (f"its adjoints grew {growth.factor:.1e} times on their way back to student step "
                         f"{growth.step}, beyond adjoint_limit={self._limit:g}")
            if not fault and not np.isfinite([value, np.sum(pull)]).all():
                fault = "the penalty, or its gradient, is not finite"
                value = 0.0
            table[index] = Figures(float(result.objective), norm,
                                   float(tf.linalg.global_norm(result.adjoint.params)),
                                   growth.factor, measure, value, bool(fault))
            if fault:
                warnings.warn(f"teacher step {progress.step} goes without rollout {index}: {fault}.", stacklevel=4)
            else:
                scale = 1.0 if self._clip_norm is None else min(1.0, self._clip_norm / max(norm, 1e-30))
                total += scale * _flat(result.gradient) - self._penalty * weight * pull
        table = self._replicas.total(table)
        finite = table[:, -1] == 0
        means = Figures(*map(float, np.mean(table[finite] if finite.any() else table, axis=0)))
        means = means._replace(adjoint_growth=float(np.max(table[:, 3])), measure=float(np.mean(table[:, 4])))
        if finite.any():
            self._apply(self._replicas.total(total) / np.float32(np.sum(finite)))
        return bool(finite.any()), means, int(np.sum(~finite))

    def _apply(self, ascent: np.ndarray) -> None:
        ends = np.cumsum([v.shape.num_elements() for v in self._teacher.theta])
        parts = np.split(-ascent, ends[:-1])
        self._optimizer.apply([tf.constant(part.reshape(v.shape), v.dtype)
                               for part, v in zip(parts, self._teacher.theta, strict=True)], self._teacher.theta)

    def _penalty_of(self, result: Hypergradient) -> tuple[float, np.ndarray | float]:
        if not self._penalty:
            return 0.0, 0.0
        value, *pull = self._penalty_gradient(result.rollout.features)
        return float(value), _flat(pull)

    def _differentiate_penalty(self, features: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """r for the statuses [steps, features], and its gradient with respect to θ (the statuses are held)."""
        theta = self._teacher.theta
        with tf.GradientTape() as tape:
            value = self._teacher.penalty(self._teacher.apply(tuple(map(tf.convert_to_tensor, theta)), features))
        return value, *tape.gradient(value, theta, unconnected_gradients="zero")

    def _growth(self, result: Hypergradient, progress: Progress) -> AdjointGrowth:
        """The growth of a rollout's adjoints; warns, once in a training, of one beyond the alarm, unless they had no
        finite value to grow from: then the student diverged, as is told."""
        limit = np.inf if self._alarm is None else self._alarm
        norms = result.rollout.trace["adjoint_norm"]
        found = adjoint_growth(norms, limit)
        if found.factor > limit and np.isfinite(norms[-1]) and not progress.alarmed:
            progress.alarmed = True
            warnings.warn(
                f"in teacher step {progress.step} the adjoints grew {found.factor:.1e} times on their way back to "
                f"student step {found.step}: the gradient holds for changes of the teacher that much smaller only. "
                "Lower the student's learning rate, or sweep back through the last steps only: "
                f"compile(truncate={found.truncate}).", stacklevel=5)
        return found


def _flat(tensors: Sequence[tf.Tensor]) -> np.ndarray:
    return np.concatenate([np.ravel(t) for t in tensors])
