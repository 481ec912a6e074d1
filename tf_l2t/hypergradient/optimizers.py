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
    check_fraction("momentum", momentum)
    if nesterov and momentum == 0:
        raise ValueError("nesterov=True needs a momentum above 0; received momentum=0.")

    def rule(grad: tf.Tensor, param: tf.Tensor, rate: tf.Tensor, step: tf.Tensor, *slots: tf.Tensor) -> Tensors:
        if weight_decay and coupled:
            grad = grad + weight_decay * param
        delta = -rate * grad
        if not momentum:
            return (param + delta,)
        velocity = momentum * slots[0] + delta
        return param + (momentum * velocity + delta if nesterov else velocity), velocity

    return weight_by_weight(rule, 1 if momentum else 0, learning_rate, weight_decay, coupled, linear=True)


def weight_by_weight(rule: Callable[..., Tensors], num_slots: int, learning_rate: LearningRate, weight_decay: float,
                     coupled: bool = False, linear: bool = False) -> InnerOptimizer:
    """The optimizer that does the same to every weight.

    Args:
      rule: (grad, param, rate, step, *slots) -> (param, *slots), all tensors shaped as the weight but the scalars
        `rate` and `step`.
      num_slots: how many slots a weight has; they start at zero.
      learning_rate: η, a number or a function of the step.
      weight_decay: λ. What `rule` gets as `param` is (1 − η λ) ω_t, unless the decay is coupled.
      coupled: whether the decay is left to `rule`.
      linear: as in `InnerOptimizer`.

    Raises:
      ValueError: for a negative rate or decay.
    """
    if not callable(learning_rate) and not learning_rate >= 0:
        raise ValueError(f"learning_rate must be a number >= 0 or a schedule; received {learning_rate!r}.")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0; received {weight_decay!r}.")

    def init(params: Tensors) -> Slots:
        return tuple(tuple(tf.zeros_like(p) for p in params) for _ in range(num_slots))

    def update(grads: Tensors, slots: Slots, params: Tensors, step: tf.Tensor) -> tuple[Tensors, Slots]:
        scheduled = learning_rate(step) if callable(learning_rate) else None
        rows = []
        for grad, param, *own in zip(grads, params, *slots, strict=True):
            # tf.cast would round a Python number to float32 first.
            rate = tf.constant(learning_rate, param.dtype) if scheduled is None else tf.cast(scheduled, param.dtype)
            if weight_decay and not coupled:
                param = param - param * weight_decay * rate
            rows.append(rule(grad, param, rate, step, *own))
        new_params, *new_slots = zip(*rows, strict=True)
        return new_params, tuple(new_slots)

    return InnerOptimizer(init, update, linear)


def check_fraction(name: str, value: float) -> None:
    """Raises ValueError if `value` is not in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1); received {value!r}.")
