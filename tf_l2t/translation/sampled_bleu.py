"""Expected BLEU over a few candidate translations: what a teacher maximises instead of `expected_bleu`.

The candidates are decoded without a gradient, by beam search or by sampling; their log probabilities log p_k(x) are
then read from the student by teacher forcing, with one. Rewards are sentence BLEUs, or any measure of a candidate.
"""

from __future__ import annotations

import tensorflow as tf

from tf_l2t.translation.sequence_losses import candidate_weights, only

FORMS = ("n_best", "score_function")


def sampled_bleu_objective(log_probs: tf.Tensor, rewards: tf.Tensor, form: str = "n_best",
                           valid: tf.Tensor | None = None) -> tf.Tensor:
    """The mean over sentences of the expected reward, a scalar.

    "n_best": Σ_k softmax(log p)_k R_k. Candidates are different ones, and all the mass is taken to be on them: no
    noise, but a bias.

    "score_function": candidates are independent samples of the student. The value is the mean reward; its derivatives
    are unbiased for those of E[R],

        1/K Σ_k (R_k − b_k) exp(log p_k − stop(log p_k)) + b_k,  b_k = Σ_{j≠k} R_j / (K − 1)

    whose gradient is 1/K Σ_k (R_k − b_k) ∂log p_k: REINFORCE, with the other samples' mean for a baseline.

    Args:
      log_probs: of whole candidates, [batch, K].
      rewards: R, [batch, K]; not differentiated.
      form: "n_best" or "score_function".
      valid: bool [batch, K], or None for all: which candidates count; for "n_best" only. A sentence without any
        scores 0.

    Raises:
      ValueError: for an unknown form, for "score_function" with one sample or with `valid`: samples that occur twice
        count twice.

    Source: L2T-DLF, section 3.3; Williams, "Simple statistical gradient-following algorithms", 1992; the baseline:
    Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019; derivatives of any order: Foerster et al.,
    "DiCE", ICML 2018.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}; received {form!r}.")
    rewards = tf.stop_gradient(tf.cast(rewards, log_probs.dtype))
    if form == "n_best":
        return tf.reduce_mean(tf.reduce_sum(candidate_weights(log_probs, valid) * only(rewards, valid), axis=1))
    if valid is not None:
        raise ValueError("score_function takes no valid: every sample counts, as often as it was drawn.")
    if log_probs.shape[1] == 1:
        raise ValueError("score_function needs at least 2 samples a sentence; received 1.")
    samples = tf.cast(tf.shape(log_probs)[1], log_probs.dtype)
    baseline = (tf.reduce_sum(rewards, axis=1, keepdims=True) - rewards) / (samples - 1)
    magic = tf.exp(log_probs - tf.stop_gradient(log_probs))
    return tf.reduce_mean((rewards - baseline) * magic + baseline)
