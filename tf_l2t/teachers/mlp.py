"""A teacher with one hidden layer: Φ as a smooth function of the status."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_l2t.teachers.base import Teacher


class MLPTeacher(Teacher):
    """Φ_t = Φ_0 + B + (1 / H) W tanh(V s_t + b), with B [C, C], W [C, C, H], V [H, |s|], b [H].

    B and W start at zero, so every student starts with Φ_0 (`first`); V is drawn from a standard normal. The mean over
    hidden units, not their sum, lets one step of Adam at a given rate move Φ about as far as it does in an
    `AttentionTeacher`.

    Args:
      num_classes: C.
      num_features: |s|.
      hidden: H.
      loss: the name of a taught loss (`tf_l2t.losses.TAUGHT_FORMS`).
      seed: of V.
      **options: `ignored`, `class_counts`, `name`, see `Teacher`.

    Raises:
      ValueError: for an unknown loss, fewer than two classes, no feature or no hidden unit.
    """

    def __init__(self, num_classes: int, num_features: int, hidden: int = 32, loss: str = "stable", seed: int = 0,
                 **options: Any):
        super().__init__(num_classes, num_features, loss, **options)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1; received {hidden!r}.")
        self.hidden = hidden
        self.seed = seed
        self.inputs = tf.Variable(tf.random.stateless_normal([num_features, hidden], seed=[seed, 0]), name="inputs")
        self.thresholds = tf.Variable(tf.zeros([hidden]), name="thresholds")
        self.outputs = tf.Variable(tf.zeros([hidden, num_classes ** 2]), name="outputs")
        self.bias = tf.Variable(tf.zeros([num_classes ** 2]), name="bias")

    @property
    def theta(self) -> tuple[tf.Variable, ...]:
        return self.inputs, self.thresholds, self.outputs, self.bias

    def apply(self, theta: tuple[tf.Tensor, ...], features: tf.Tensor) -> tf.Tensor:
        inputs, thresholds, outputs, bias = theta
        rows = self.seen(features, inputs.dtype)
        units = tf.tanh(tf.linalg.matmul(rows, inputs) + thresholds)
        flat = bias + tf.linalg.matmul(units, outputs) / self.hidden
        matrices = tf.reshape(flat, [*tf.unstack(tf.shape(features)[:-1]), self.num_classes, self.num_classes])
        return matrices + tf.cast(self.first, matrices.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden, "seed": self.seed}
