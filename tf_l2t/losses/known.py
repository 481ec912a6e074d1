"""Losses that know something of the labels: how they were corrupted, or how often each class occurs.

As in `fixed`: integer labels [batch], logits [batch, classes], one loss per example out; y is the label, C the number
of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_l2t.losses.fixed import cross_entropy


def forward_correction(labels: tf.Tensor, logits: tf.Tensor, noise: Any) -> tf.Tensor:
    """−log Σ_i p_i N_iy, [batch]: cross entropy of what the corrupted label is expected to be.

    With the true N, this is an oracle: what it knows is not in the data.

    Args:
      noise: N [C, C], N_ij the probability that an example of class i carries label j; rows sum to 1.

    Raises:
      ValueError: if N is no matrix of probabilities.

    Source: Patrini et al., "Making deep neural networks robust to label noise", CVPR 2017, section 4.2.
    """
    noise = np.asarray(noise, np.float64)
    if noise.ndim != 2 or noise.shape[0] != noise.shape[1] or noise.shape[0] != logits.shape[-1] \
            or (noise < 0).any() or not np.allclose(noise.sum(axis=1), 1, atol=1e-6):
        raise ValueError(f"noise must be a matrix [{logits.shape[-1]}, {logits.shape[-1]}] of probabilities whose rows "
                         f"sum to 1; received shape {noise.shape} with rows that sum to {noise.sum(axis=-1)}.")
    # log N_iy + log p_i, summed in the exponent: no probability is rounded to zero.
    log_noise = tf.constant(np.log(np.maximum(noise, np.finfo(np.float32).tiny)), logits.dtype)
    target = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    columns = tf.linalg.matmul(target, log_noise, transpose_b=True)
    return -tf.reduce_logsumexp(columns + tf.nn.log_softmax(logits), axis=-1)


def gold_correction(labels: tf.Tensor, logits: tf.Tensor, noise: Any) -> tf.Tensor:
    """Forward correction of untrusted examples, cross entropy of trusted ones, [batch].

    Args:
      labels: y of an untrusted example, C + y of a trusted one.
      noise: as for `forward_correction`; gold loss correction takes the estimate of `estimated_noise`.

    Raises:
      ValueError: as `forward_correction`.

    Source: Hendrycks et al., "Using trusted data to train deep networks on labels corrupted by severe noise", NeurIPS
    2018, section 3.
    """
    classes = logits.shape[-1]
    plain = labels % classes
    return tf.where(labels < classes, forward_correction(plain, logits, noise), cross_entropy(plain, logits))


def estimated_noise(labels: Any, probabilities: Any) -> np.ndarray:
    """Ĉ [C, C]: row i is the mean, over trusted examples of class i, of what a network trained on corrupted labels
    predicts; a class without a trusted example keeps its own label.

    Args:
      labels: of trusted examples, integers [examples].
      probabilities: that network's, [examples, C].

    Source: Hendrycks et al., NeurIPS 2018, section 3.1.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    noise = np.eye(probabilities.shape[-1])
    for c in np.unique(labels):
        row = probabilities[labels == c].mean(axis=0)
        noise[c] = row / row.sum()
    return noise


def class_balanced(labels: tf.Tensor, logits: tf.Tensor, counts: Any, beta: float = 0.999) -> tf.Tensor:
    """−w_y log p_y, [batch], with w_c = (1 − β) / (1 − β^{n_c}), scaled to a mean of 1 over classes.

    Args:
      counts: n_c ≥ 1, examples of each class, [C].
      beta: β in [0, 1): 0 gives all classes the same weight; as β → 1 the weights become 1 / n_c.

    Raises:
      ValueError: for counts below 1 or of another length, or β out of range.

    Source: Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019, equation (12).
    """
    counts = _counts(counts, logits)
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1); received {beta!r}.")
    weights = (1 - beta) / -np.expm1(counts * np.log(beta)) if beta else np.ones_like(counts)
    weights = tf.constant(weights / weights.mean(), logits.dtype)
    return tf.gather(weights, labels) * cross_entropy(labels, logits)


def logit_adjustment(labels: tf.Tensor, logits: tf.Tensor, counts: Any, tau: float = 1.0) -> tf.Tensor:
    """−log softmax(logits + τ log π)_y, [batch], with π_c = n_c / Σ n.

    Args:
      counts: n_c ≥ 1, examples of each class, [C].
      tau: τ ≥ 0.

    Raises:
      ValueError: for counts below 1 or of another length, or a negative τ.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation (10).
    """
    counts = _counts(counts, logits)
    if not tau >= 0:
        raise ValueError(f"tau must be >= 0; received {tau!r}.")
    return cross_entropy(labels, logits + tf.constant(tau * np.log(counts / counts.sum()), logits.dtype))


def _counts(counts: Any, logits: tf.Tensor) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    if counts.shape != (logits.shape[-1],) or not (counts >= 1).all():
        raise ValueError(f"counts must hold the number of examples, at least 1, of each of the {logits.shape[-1]} "
                         f"classes; received {counts}.")
    return counts
