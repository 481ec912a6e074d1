"""Which weights of a teacher are the best: those whose students, of seeds that never train it, do best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_l2t.data import ArrayPair
from tf_l2t.hypergradient import Problem, StudentState, initial_state, rollout
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher


class Penalty:
    """r, the mean of `Teacher.penalty` over statuses: statuses [steps, features] -> (r, dr/dθ), the statuses held."""

    def __init__(self, teacher: Teacher):
        self._teacher = teacher
        self._differentiated = tf.function(self._differentiate, reduce_retracing=True)

    def __call__(self, features: tf.Tensor) -> tuple[float, list[tf.Tensor]]:
        value, gradient = self._differentiated(features)
        return float(value), gradient

    def _differentiate(self, features: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        theta = self._teacher.theta
        with tf.GradientTape() as tape:
            value = self._teacher.penalty(self._teacher.apply(tuple(map(tf.convert_to_tensor, theta)), features))
        return value, tape.gradient(value, theta, unconnected_gradients="zero")


class Validation:
    """Students that follow a teacher as it is, and the best weights that it had so far.

    Args:
      teacher: whose weights are judged.
      student, problem: what it trains.
      objective, exact: (labels, logits) -> scalar, measured on `data`: M, by which weights are judged, and accuracy.
      data: checked arrays.
      seeds: of the students.
      weight, penalty: λ and r: the best weights are those of the highest M − λ r.
      jit: as for `tf_l2t.hypergradient.rollout`.

    Attributes:
      value: M − λ r of the newest validation; −∞ where it is not finite.
      best_value, best_logs, best_weights: those of the best one; before the first, −∞, nothing, and the weights given.
    """

    def __init__(self, teacher: Teacher, student: FunctionalStudent, problem: Problem,
                 objective: Callable[..., tf.Tensor], exact: Callable[..., tf.Tensor], data: ArrayPair, seeds: range,
                 weight: float, penalty: Penalty, jit: str | bool = "auto"):
        self._teacher, self._student, self._problem, self._seeds = teacher, student, problem, seeds
        self._run = rollout(problem, teacher, jit=jit)
        self._measures = {"val_objective": measure(student, objective, data),
                          "val_accuracy": measure(student, exact, data)}
        self._weight, self._penalty = weight, penalty
        self.value = self.best_value = -np.inf
        self.best_logs: dict[str, float] = {}
        self.best_weights = weights_of(teacher)

    def __call__(self) -> dict[str, float]:
        """Validates the teacher, keeps its weights if they are the best, and returns what was measured."""
        self.value, logs = self._validated()
        if self.value > self.best_value:
            self.best_value, self.best_logs, self.best_weights = self.value, logs, weights_of(self._teacher)
        return logs

    def _validated(self) -> tuple[float, dict[str, float]]:
        runs = [self._run(initial_state(self._problem, *self._student.init(seed)), seed) for seed in self._seeds]
        means = {name: float(np.mean([measured(run.final_state) for run in runs]))
                 for name, measured in self._measures.items()}
        logs = {name: mean if np.isfinite(mean) else -np.inf for name, mean in means.items()}
        value = logs["val_objective"]
        if self._weight:
            logs["val_penalty"] = self._penalty(tf.concat([run.features for run in runs], axis=0))[0]
            value -= self._weight * logs["val_penalty"]
        return value if np.isfinite(value) else -np.inf, logs


def measure(student: FunctionalStudent, function: Callable[..., tf.Tensor], data: ArrayPair
            ) -> Callable[[StudentState], float]:
    """`function`(labels, logits) of `data` as a function of a student's state, compiled."""
    x, y = tf.convert_to_tensor(data.x), tf.convert_to_tensor(data.y)

    @tf.function(autograph=False)
    def value(params: Any, non_trainable: Any) -> tf.Tensor:
        return function(y, student.apply(params, non_trainable, x, training=False)[0])

    return lambda state: float(value(state.params, state.non_trainable))


def weights_of(teacher: Teacher) -> list[np.ndarray]:
    """The values of a teacher's variables."""
    return [variable.numpy() for variable in teacher.theta]
