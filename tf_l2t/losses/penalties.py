"""What the coefficients beside the diagonal of Φ cost a teacher: few dev examples say little of most of them.

Both functions take A [..., classes, classes], zero on the diagonal, and return r [...].
"""

from __future__ import annotations

import tensorflow as tf

RIVAL_PENALTY = 5.0
DIFFERENCE_PENALTY = 64.0  # 1 for differences of a new teacher's Φ_ij itself, an eighth of the diagonal


def doubts(beside: tf.Tensor) -> tf.Tensor:
    """Where most coefficients are to be 0, for A = Φ / start.

        r = Σ_{i≠j} |A_ij| + 5 Σ_i Σ_{j<k; j,k≠i} |A_ij| |A_ik|

    The first sum is that of the lasso: coefficients that the dev set says little of end at 0. The second has the mixed
    terms of the exclusive lasso (Zhou, Jin and Hoi, AISTATS 2010): the doubts of one label are each other's rivals, so
    that a class that is taken for one or two others is learned at little cost, and one that is taken for all of them a
    little is not a matter of doubts; there the diagonal has to help.
    """
    sizes = tf.abs(beside)
    rows = tf.reduce_sum(sizes, axis=-1)
    rivals = tf.reduce_sum(tf.square(rows) - tf.reduce_sum(tf.square(sizes), axis=-1), axis=-1) / 2
    return tf.reduce_sum(rows, axis=-1) + RIVAL_PENALTY * rivals


def differences(beside: tf.Tensor) -> tf.Tensor:
    """Where coefficients may take any value together, and are not to differ without need, for A = Φ / start.

        r = 64 Σ_{i≠j} (A_ij − Ā)²,  Ā the mean over i ≠ j
    """
    classes = tf.shape(beside)[-1]
    others = 1 - tf.eye(classes, dtype=beside.dtype)
    count = tf.cast(classes * (classes - 1), beside.dtype)
    mean = tf.reduce_sum(beside, axis=[-2, -1], keepdims=True) / count
    return DIFFERENCE_PENALTY * tf.reduce_sum(tf.square(others * (beside - mean)), axis=[-2, -1])
