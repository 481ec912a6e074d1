"""The optimizer of the distillation literature, whose published rates and decays are those of PyTorch's SGD."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tf_l2t")
class CoupledSGD(keras.optimizers.Optimizer):
    """SGD with momentum and coupled weight decay: v ← μ v + g + wd · w, w ← w − η v.

    Weight decay is L2 in the gradient, of every trained weight, so that it has momentum; `keras.optimizers.SGD` takes
    it from the weight directly. The rate is outside the velocity, so that a drop of the rate acts at once; Keras' SGD
    has it inside.

    Args:
      learning_rate: η, a number or a schedule.
      momentum: μ in [0, 1).
      weight_decay: wd ≥ 0.
      **options: of `keras.optimizers.Optimizer`, such as `clipnorm`.

    Raises:
      ValueError: for numbers out of range.
    """

    def __init__(self, learning_rate: Any = 0.05, momentum: float = 0.9, weight_decay: float = 5e-4,
                 name: str = "coupled_sgd", **options: Any):
        if not 0 <= momentum < 1 or not weight_decay >= 0:
            raise ValueError("momentum must be in [0, 1) and weight_decay at least 0; received "
                             f"{momentum!r}, {weight_decay!r}.")
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum, self.coupled_weight_decay = momentum, weight_decay

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        velocity = self._velocities[self._get_variable_index(variable)]
        gradient = tf.cast(gradient, variable.dtype)
        if self._use_weight_decay(variable):  # see `exclude_from_weight_decay`
            gradient += self.coupled_weight_decay * variable
        self.assign(velocity, self.momentum * velocity + gradient)
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * velocity)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "weight_decay": self.coupled_weight_decay}
