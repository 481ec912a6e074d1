"""One step of a teacher's optimizer, from what its students' runs gave."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import Hypergradient, adjoint_growth
from tf_l2t.teachers import Teacher
from tf_l2t.training.teacher_progress import Progress


class TeacherStep:
    """Moves a teacher along the mean of its finite rollouts' clipped gradients, less the penalty's.

    Args:
      teacher, optimizer: moved, and by what.
      clip_norm: the largest norm of one rollout's dθ; None for no limit.
      penalty: λ.
    """

    def __init__(self, teacher: Teacher, optimizer: keras.optimizers.Optimizer, clip_norm: float | None,
                 penalty: float):
        self._teacher, self._optimizer, self._clip_norm, self._penalty = teacher, optimizer, clip_norm, penalty
        self._penalty_gradient = tf.function(self._differentiate_penalty, reduce_retracing=True)

    def __call__(self, results: Sequence[Hypergradient], progress: float) -> tuple[bool, dict[str, float]]:
        """Whether there was a finite gradient, and the logs; `progress`, in [0, 1], is how much of λ counts."""
        norms = [float(tf.linalg.global_norm(r.gradient)) for r in results]
        finite = [(r, n) for r, n in zip(results, norms, strict=True) if np.isfinite(n) and np.isfinite(r.objective)]
        shown = finite or list(zip(results, norms, strict=True))
        logs = {"objective": float(np.mean([float(r.objective) for r, _ in shown])),
                "gradient_norm": float(np.mean([n for _, n in shown])),
                "adjoint_norm": float(np.mean([float(tf.linalg.global_norm(r.adjoint.params)) for r, _ in shown])),
                "learning_rate": float(self._optimizer.learning_rate),
                "dropped_rollouts": len(results) - len(finite)}
        if self._penalty:
            value, *pull = self._penalty_gradient(tf.concat([r.rollout.features for r, _ in shown], axis=0))
            logs["penalty"] = float(value)
        if not finite:
            return False, logs
        scales = [1.0 if self._clip_norm is None else min(1.0, self._clip_norm / max(n, 1e-30)) for _, n in finite]
        mean = [tf.add_n([scale * g for (_, _), scale, g in zip(finite, scales, gradients, strict=True)]) / len(finite)
                for gradients in zip(*(r.gradient for r, _ in finite), strict=True)]
        if self._penalty:
            mean = [g - self._penalty * progress * p for g, p in zip(mean, pull, strict=True)]
        self._optimizer.apply([-g for g in mean], self._teacher.theta)
        return True, logs

    def _differentiate_penalty(self, features: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """r for the statuses [steps, features], and its gradient with respect to θ (the statuses are held)."""
        theta = self._teacher.theta
        with tf.GradientTape() as tape:
            value = self._teacher.penalty(self._teacher.apply(tuple(map(tf.convert_to_tensor, theta)), features))
        return value, *tape.gradient(value, theta, unconnected_gradients="zero")


def watch_adjoints(results: Sequence[Hypergradient], progress: Progress, alarm: float | None) -> float:
    """The largest growth of the adjoints in any rollout; warns, once in a training, of one beyond the alarm."""
    limit = np.inf if alarm is None else alarm
    worst = max((adjoint_growth(r.rollout.trace["adjoint_norm"], limit) for r in results), key=lambda g: g.factor)
    if worst.factor > limit and not progress.alarmed:
        progress.alarmed = True
        warnings.warn(
            f"in teacher step {progress.step} the adjoints grew {worst.factor:.1e} times on their way back to student "
            f"step {worst.step}: the gradient holds for changes of the teacher that much smaller only. Lower the "
            "student's learning rate, or sweep back through the last steps only: "
            f"compile(truncate={worst.truncate}).", stacklevel=4)
    return worst.factor
