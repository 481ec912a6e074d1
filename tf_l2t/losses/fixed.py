"""Losses without a teacher: integer labels [batch] and logits [batch, classes] in, one loss per example out.

All are twice differentiable in the logits almost everywhere. p is the softmax of the logits, y the label, C the number
of classes.
"""

from __future__ import annotations

import math

import tensorflow as tf


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """−log p_y, [batch] (L2T-DLF, section 4.1, loss 1)."""
    return -_log_p_y(labels, tf.nn.log_softmax(logits))


def smooth_zero_one(labels: tf.Tensor, logits: tf.Tensor, sharpness: float = 50.0) -> tf.Tensor:
    """−log σ(K (log p_y − max_{j≠y} log p_j)), [batch]: near 0 for a right answer, K times the margin for a wrong one.

    Args:
      sharpness: K > 0; the paper takes 50.

    Source: L2T-DLF, section 4.1, loss 2.
    """
    _check("sharpness", sharpness, above=0)
    # Differences of logits are those of log p.
    rival = tf.reduce_max(tf.where(_is_label(labels, logits), tf.constant(-math.inf, logits.dtype), logits), axis=-1)
    return tf.nn.softplus(-sharpness * (_log_p_y(labels, logits) - rival))


def label_smoothing(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.1) -> tf.Tensor:
    """Cross entropy with the target (1 − ε) e_y + ε / C, [batch].

    Args:
      smoothing: ε in [0, 1).

    Source: Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.
    """
    _check("smoothing", smoothing, least=0, below=1)
    log_p = tf.nn.log_softmax(logits)
    return -(1 - smoothing) * _log_p_y(labels, log_p) - smoothing * tf.reduce_mean(log_p, axis=-1)


def focal(labels: tf.Tensor, logits: tf.Tensor, gamma: float = 2.0) -> tf.Tensor:
    """−(1 − p_y)^γ log p_y, [batch].

    Args:
      gamma: γ, 0 (cross entropy) or at least 1: below, the derivative at p_y = 1 is infinite.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017.
    """
    if gamma != 0:
        _check("gamma, if not 0,", gamma, least=1)
    log_p_y = _log_p_y(labels, tf.nn.log_softmax(logits))
    return -(-tf.math.expm1(log_p_y)) ** gamma * log_p_y if gamma else -log_p_y


def generalised_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, q: float = 0.7) -> tf.Tensor:
    """(1 − p_y^q) / q, [batch]: cross entropy as q → 0, the mean absolute error at q = 1.

    Args:
      q: in (0, 1].

    Source: Zhang and Sabuncu, NeurIPS 2018, equation (6).
    """
    _check("q", q, above=0, most=1)
    return -tf.math.expm1(q * _log_p_y(labels, tf.nn.log_softmax(logits))) / q


def symmetric_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, alpha: float = 0.1, beta: float = 1.0,
                            log_zero: float = -4.0) -> tf.Tensor:
    """−α log p_y − β A (1 − p_y), [batch]: cross entropy, and cross entropy with p and the label exchanged.

    Args:
      alpha: α ≥ 0, of cross entropy.
      beta: β ≥ 0, of the reverse one, whose log 0 is `log_zero`.
      log_zero: A < 0.

    Source: Wang et al., "Symmetric cross entropy for robust learning with noisy labels", ICCV 2019, equation (9).
    """
    _check("alpha", alpha, least=0)
    _check("beta", beta, least=0)
    _check("-log_zero", -log_zero, above=0)
    log_p_y = _log_p_y(labels, tf.nn.log_softmax(logits))
    return -alpha * log_p_y + beta * log_zero * tf.math.expm1(log_p_y)


def _is_label(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.one_hot(labels, tf.shape(logits)[-1], on_value=True, off_value=False)


def _log_p_y(labels: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """values[i, labels[i]], as a product: its derivatives are dense, which a ForwardAccumulator needs."""
    return tf.reduce_sum(tf.one_hot(labels, tf.shape(values)[-1], dtype=values.dtype) * values, axis=-1)


def _check(name: str, value: float, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf,
           below: float = math.inf) -> None:
    if not (least <= value <= most and above < value < below):
        bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", least), (">", above), ("<=", most), ("<", below))
                  if math.isfinite(bound)]
        raise ValueError(f"{name} must be a number {' and '.join(bounds)}; received {value!r}.")
