"""Which weights of a teacher are the best: those whose students, of seeds that never train it, do best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_l2t.data import ArrayPair
from tf_l2t.hypergradient import Problem, StudentState, advance, initial_state
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.teachers import Teacher


class Validation:
    """Students that follow a teacher as it is, and the best weights that it had so far.

    The best are those of the highest M. A penalty does not enter: at its full weight it shrinks coefficients that are
    needed, and weights from before that are the better ones (docs/teaching.md has the figures).

    Args:
      teacher: whose weights are judged.
      student, problem: what it trains.
      objective: (labels, logits) -> M.
      data: checked arrays, on which M and the accuracy are measured.
      seeds: of the students.
      jit: as for `tf_l2t.hypergradient.advance`.

    Attributes:
      value: M of the newest validation; −∞ where it is not finite.
      best_value, best_weights: those of the best one; before the first, −∞, and the weights given.
    """

    def __init__(self, teacher: Teacher, student: FunctionalStudent, problem: Problem,
                 objective: Callable[..., tf.Tensor], data: ArrayPair, seeds: range, jit: str | bool = "auto"):
        self._teacher, self._student, self._problem, self._seeds = teacher, student, problem, seeds
        self._run = advance(problem, teacher, jit=jit)
        self._measures = {"val_objective": measure(student, objective, data),
                          "val_accuracy": measure(student, accuracy, data)}
        self.value = self.best_value = -np.inf
        self.best_weights = weights_of(teacher)

    def __call__(self) -> dict[str, float]:
        """Validates the teacher, keeps its weights if they are the best, and returns the means over its students."""
        logs = self._means()
        self.value = logs["val_objective"]
        if self.value > self.best_value:
            self.best_value, self.best_weights = self.value, weights_of(self._teacher)
        return logs

    def _means(self) -> dict[str, float]:
        finals = [self._run(initial_state(self._problem, *self._student.init(seed)), seed, self._problem.num_steps)
                  for seed in self._seeds]
        means = {name: float(np.mean([measured(final) for final in finals]))
                 for name, measured in self._measures.items()}
        return {name: mean if np.isfinite(mean) else -np.inf for name, mean in means.items()}


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
