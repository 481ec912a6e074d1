"""Losses of a student's logits against a teacher's, as targets. All return the mean over the batch, a scalar.

Nothing flows back to the teacher but what its own tensor carries: stop it there.
"""

from __future__ import annotations

import tensorflow as tf


def kullback_leibler(teacher: tf.Tensor, student: tf.Tensor, temperature: float = 4.0) -> tf.Tensor:
    """KD: T² KL(softmax(t / T) ‖ softmax(s / T)).

    Args:
      teacher, student: logits [batch, classes].
      temperature: T > 0.

    Raises:
      ValueError: for a temperature out of range, or logits of two shapes.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2.
    """
    log_p, log_q = _log_probs(teacher, student, temperature)
    divergence = tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
    return temperature ** 2 * tf.reduce_mean(divergence)


def soft_cross_entropy(teacher: tf.Tensor, student: tf.Tensor, temperature: float = 1.0) -> tf.Tensor:
    """T² H(softmax(t / T), softmax(s / T)), H(p, q) = −Σ p log q.

    In the student's logits its derivative is that of `kullback_leibler`; in the teacher's it is another one: of
    −Σ q_s log p_t, which is ProKT's term in the teacher's loss, take the student first.

    Args:
      teacher: logits [batch, classes] of p.
      student: of q.
      temperature: T > 0.

    Raises:
      ValueError: as `kullback_leibler`.

    Source: ProKT, equations (1), (5) and (7).
    """
    log_p, log_q = _log_probs(teacher, student, temperature)
    return -temperature ** 2 * tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * log_q, axis=-1))


def _log_probs(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; received {temperature!r}.")
    if len(teacher.shape) != 2 or not teacher.shape.is_compatible_with(student.shape):
        raise ValueError("logits of teacher and student are [batch, classes], of as many classes; received shapes "
                         f"{tuple(teacher.shape)}, {tuple(student.shape)}.")
    return tf.nn.log_softmax(teacher / temperature), tf.nn.log_softmax(student / temperature)
