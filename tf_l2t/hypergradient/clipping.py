"""Gradient clipping, as part of the student's update."""

from __future__ import annotations

import tensorflow as tf

from tf_l2t.hypergradient.adaptive import safe_sqrt
from tf_l2t.hypergradient.optimizers import InnerOptimizer, Slots, Tensors


def clip(optimizer: InnerOptimizer, *, norm: float | None = None, value: float | None = None,
         global_norm: float | None = None) -> InnerOptimizer:
    """`optimizer` on clipped gradients, as Keras clips them: before weight decay and moments. With c the bound:

        norm:         g ← g c / max(‖g‖, c), each weight's gradient by its own norm        `clipnorm`
        value:        g ← min(max(g, −c), c), element by element                          `clipvalue`
        global_norm:  g ← g c / max(‖(g_1, …, g_n)‖, c), all by their common norm         `global_clipnorm`

    A norm has no derivative at g = 0; there g is not clipped, and the derivative is the identity. A clipped gradient
    passes on only what changes it: of a value nothing, of a norm its direction. As in Keras, a global norm that is not
    finite makes every gradient NaN.

    Args:
      optimizer: what is given the clipped gradients.
      norm, value, global_norm: c, above 0. Exactly one is given.

    Raises:
      ValueError: if none or several are given, or the one is not positive.
    """
    bounds = {"norm": norm, "value": value, "global_norm": global_norm}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if len(given) != 1:
        raise ValueError(f"exactly one of norm, value and global_norm must be given; received {given or 'none'}.")
    (kind, bound), = given.items()
    if not bound > 0:
        raise ValueError(f"{kind} must be above 0; received {bound!r}.")

    def by_norm(grad: tf.Tensor) -> tf.Tensor:
        return grad * (bound / tf.maximum(safe_sqrt(tf.reduce_sum(tf.square(grad))), bound))

    def by_value(grad: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(grad, -bound, bound)

    def clipped(grads: Tensors) -> Tensors:
        if kind != "global_norm":
            return tuple(map(by_norm if kind == "norm" else by_value, grads))
        length = safe_sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in grads]))
        factor = bound / tf.maximum(length, bound) + (length - length)  # NaN for an infinite length
        return tuple(g * factor for g in grads)

    def update(grads: Tensors, slots: Slots, params: Tensors, step: tf.Tensor) -> tuple[Tensors, Slots]:
        return optimizer.update(clipped(grads), slots, params, step)

    return InnerOptimizer(optimizer.init, update)
