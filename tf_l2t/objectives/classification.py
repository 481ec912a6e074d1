"""Measures of a classifier: relaxed ones that a teacher maximises, exact ones that fill tables.

All take integer labels [examples] and logits [examples, classes] and return a mean over the examples, so that values
do not depend on the size of the dev set (the paper writes sums).
"""

from __future__ import annotations

import tensorflow as tf

TRAIN_ACCURACY_DECAY = 0.9


def _target_log_prob(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    target = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    return tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=-1)


def relaxed_accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """mean p(y | x): the accuracy expected of a prediction drawn from the student, in [0, 1].

    Source: L2T-DLF, section 3.3, with m the 0-1 accuracy. Its gradient vanishes where p(y | x) does.
    """
    return tf.reduce_mean(tf.exp(_target_log_prob(labels, logits)))


def log_likelihood(labels: tf.Tensor, logits: tf.Tensor, epsilon: float = 1e-3) -> tf.Tensor:
    """mean log(p(y | x) + ε), in nats: at most log(1 + ε), at least log ε.

    Unlike `relaxed_accuracy` it keeps a gradient where a class has died, and ε bounds what one example can do.
    """
    return tf.reduce_mean(tf.math.log(tf.exp(_target_log_prob(labels, logits)) + epsilon))


def calibrated_log_likelihood(labels: tf.Tensor, logits: tf.Tensor, iterations: int = 12) -> tf.Tensor:
    """max_β mean log softmax(β z)_y: the log-likelihood at the temperature 1 / β that is best for it, in nats.

    It asks how well the logits z tell classes apart, not how sure they are. `log_likelihood` holds a student that is
    trained to be unsure, as by label smoothing, for a bad one; and one that is only made less sure for a better one.
    Where dev examples are few it is easier to fit than `log_likelihood`.

    β is found by Newton steps in log β, at most 1/2 each, from 1; the mean is concave in β. Its derivative at the best
    β vanishes, so that of the maximum is taken with β held fixed. Where all examples are right β has no best value and
    stays at its bound, exp(iterations / 2).

    Source: temperature scaling is that of Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    fixed = tf.stop_gradient(logits)
    target = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    chosen = tf.reduce_sum(target * fixed, axis=-1)
    log_beta = tf.zeros([], logits.dtype)
    for _ in range(iterations):
        beta = tf.exp(log_beta)
        probs = tf.nn.softmax(beta * fixed)
        expected = tf.reduce_sum(probs * fixed, axis=-1)
        variance = tf.reduce_sum(probs * tf.square(fixed - expected[:, None]), axis=-1)
        slope, curvature = beta * tf.reduce_mean(chosen - expected), tf.square(beta) * tf.reduce_mean(variance)
        log_beta += tf.clip_by_value(tf.math.divide_no_nan(slope, curvature), -0.5, 0.5)
    return tf.reduce_mean(_target_log_prob(labels, tf.exp(log_beta) * logits))


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The fraction of examples whose largest logit is the label's. Not differentiable."""
    return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels),
                                  logits.dtype))


def running_accuracy(previous: tf.Tensor, batch_accuracy: tf.Tensor) -> tf.Tensor:
    """The exponential average of the mini-batches' accuracies, 0.9 old + 0.1 new, that starts at 0."""
    return TRAIN_ACCURACY_DECAY * previous + (1 - TRAIN_ACCURACY_DECAY) * tf.cast(batch_accuracy, previous.dtype)


def class_precision(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """For every class, the fraction of the examples predicted as it that are of it, [classes]; 0 if there is none."""
    num_classes = logits.shape[-1]
    predicted = tf.one_hot(tf.argmax(logits, axis=-1), num_classes, dtype=logits.dtype)
    target = tf.one_hot(labels, num_classes, dtype=logits.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(predicted * target, axis=0), tf.reduce_sum(predicted, axis=0))
