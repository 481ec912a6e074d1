"""Moments whose second derivatives are right.

`tf.nn.moments` computes the variance as mean(squared_difference(x, stop_gradient(mean))). The first derivative is
unharmed, because d/dmean of that expression is zero, but the derivative of that zero is not: second derivatives
through BatchNorm (in training), LayerNorm and GroupNorm come out wrong, silently and alike in every HVP mode.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import tensorflow as tf

from tf_l2t.hypergradient.replaced import replaced


def _moments(x, axes, shift=None, keepdims=False, name=None):
    """The mean and variance of `x`, as `tf.nn.moments`, without its `stop_gradient`."""
    del shift  # tf.nn.moments ignores it too
    with tf.name_scope(name or "exact_moments"):
        # As in tf.nn.moments: half precision sums in float32.
        wide = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(wide, mean), axes, keepdims=keepdims)
        if not keepdims:
            mean = tf.squeeze(mean, axes)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)


def exact_moments() -> AbstractContextManager[None]:
    """While active, `tf.nn.moments` has exact derivatives of every order. Its values do not change.

    The engine traces every student under it, so that stock Keras layers are differentiated twice correctly. Ops
    traced by other threads meanwhile get the same values and the same first derivatives as ever.
    """
    return replaced(tf.nn, "moments", _moments)
