"""A teacher that does not look: one Φ for the whole of every run."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_l2t.teachers.base import Teacher


class StaticTeacher(Teacher):
    """Φ_t = W, [C, C]: a learned loss that does not change, to ask what "dynamic" is worth.

    Args:
      num_classes: C.
      num_features: |s|, of the status that it takes and passes over.
      loss: the name of a taught loss (`tf_l2t.losses.TAUGHT_FORMS`).
      **options: `ignored`, `class_counts`, `name`, see `Teacher`.

    Raises:
      ValueError: for an unknown loss, fewer than two classes, or no feature.
    """

    def __init__(self, num_classes: int, num_features: int, loss: str = "stable", **options: Any):
        super().__init__(num_classes, num_features, loss, **options)
        self.matrix = tf.Variable(self.first, name="matrix")

    @property
    def theta(self) -> tuple[tf.Variable, ...]:
        return (self.matrix,)

    def apply(self, theta: tuple[tf.Tensor, ...], features: tf.Tensor) -> tf.Tensor:
        matrix, = theta
        leading = tf.shape(features)[:-1]
        return tf.broadcast_to(matrix, tf.concat([leading, tf.shape(matrix)], axis=0))
