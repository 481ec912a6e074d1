"""Losses without a teacher: integer labels [batch] and logits [batch, classes] in, one loss per example out."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """−log p(y | x), [batch] (L2T-DLF, section 4.1, loss 1). Twice differentiable in the logits."""
    target = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    return -tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=-1)
