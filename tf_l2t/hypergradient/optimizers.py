"""Inner optimizers: the student's update rule as a pair of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

Tensors = tuple[tf.Tensor, ...]
Slots = tuple[Tensors, ...]
LearningRate = float | Callable[[tf.Tensor], tf.Tensor]


class InnerOptimizer(NamedTuple):
    """An update rule (init, update), in the manner of optax.

    Attributes:
      init: params -> slots.
      update: (grads, slots, params, step) -> (params, slots), the values after the step; `step` is the number of
        updates made before. It must be differentiable in its first three arguments.
      linear: whether `update` is affine in (grads, slots, params), so that its derivatives need none of their values
        (true of SGD and its momentum forms). The reverse sweep then saves one gradient of the loss per step, and the
        slots of every state that it keeps.
    """

    init: Callable[[Tensors], Slots]
    update: Callable[[Tensors, Slots, Tensors, tf.Tensor], tuple[Tensors, Slots]]
    linear: bool = False


def sgd(learning_rate: LearningRate, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0,
        coupled: bool = False) -> InnerOptimizer:
    """Stochastic gradient descent, step for step that of `keras.optimizers.SGD`.

    With g_t the gradient, η_t the learning rate, λ the weight decay and m the momentum:

        decoupled:  ω ← ω_t − η_t λ ω_t         coupled:  g_t ← g_t + λ ω_t
        plain:      ω_{t+1} = ω − η_t g_t
        momentum:   v_{t+1} = m v_t − η_t g_t,   ω_{t+1} = ω + v_{t+1}
        Nesterov:   v_{t+1} as above,            ω_{t+1} = ω + m v_{t+1} − η_t g_t

    Args:
      learning_rate: η, a number or a function of the step, such as any
        `keras.optimizers.schedules.LearningRateSchedule`.
      momentum: m in [0, 1).
      nesterov: use Nesterov's form.
      weight_decay: λ, as `weight_decay` of Keras (decoupled), or twice the `l2` of `keras.regularizers.L2` on
        every weight (coupled).
      coupled: whether the decay is a term of the gradient.

    Raises:
      ValueError: for a negative rate or decay, or a momentum outside [0, 1).
    """
    if not callable(learning_rate) and not learning_rate >= 0:
        raise ValueError(f"learning_rate must be a number >= 0 or a schedule; received {learning_rate!r}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1); received {momentum!r}.")
    if nesterov and momentum == 0:
        raise ValueError("nesterov=True needs a momentum above 0; received momentum=0.")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0; received {weight_decay!r}.")

    def init(params: Tensors) -> Slots:
        return (tuple(tf.zeros_like(p) for p in params),) if momentum else ()

    def update(grads: Tensors, slots: Slots, params: Tensors, step: tf.Tensor) -> tuple[Tensors, Slots]:
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        new_params, new_velocity = [], []
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            # tf.cast would round a Python number to float32 first.
            eta = tf.cast(rate, param.dtype) if callable(learning_rate) else tf.constant(rate, param.dtype)
            if weight_decay and coupled:
                grad = grad + weight_decay * param
            if weight_decay and not coupled:
                param = param - param * weight_decay * eta
            delta = -eta * grad
            if momentum:
                velocity = momentum * slots[0][i] + delta
                new_velocity.append(velocity)
                delta = momentum * velocity + delta if nesterov else velocity
            new_params.append(param + delta)
        return tuple(new_params), (tuple(new_velocity),) if momentum else ()

    return InnerOptimizer(init, update, linear=True)
