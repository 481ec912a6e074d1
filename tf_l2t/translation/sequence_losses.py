"""Losses of whole sentences, over candidates that the student has translated itself.

They are no Keras losses of (y_true, y_pred): they need candidates, which a trainer decodes or samples without a
gradient and then reads by teacher forcing for their log probabilities; it mixes them with a token loss (`mixed`) and
starts from a student trained by `token_losses.token_nll`. All return one loss per sentence, [batch], and are
differentiable twice in log probabilities; rewards and costs are numbers and get no gradient.

Throughout, K is the number of candidates of a sentence, and `valid` [batch, K] says which of them count, None for all:
`unique_candidates` is one. What an invalid one holds changes nothing; a sentence without any valid one has loss 0.
"""

from __future__ import annotations

import tensorflow as tf

from tf_l2t.translation.bleu import token_mask
from tf_l2t.translation.subwords import PAD


def unique_candidates(candidates: tf.Tensor) -> tf.Tensor:
    """Which candidates are the first of their kind: integers [batch, K, T] to bool [batch, K].

    Candidates are equal if their tokens are, whatever stands behind EOS. Memory is O(batch · K² · T) booleans.
    """
    tokens = tf.where(token_mask(candidates), candidates, PAD)
    equal = tf.reduce_all(tf.equal(tokens[:, :, None, :], tokens[:, None, :, :]), axis=-1)
    return tf.equal(tf.reduce_sum(tf.linalg.band_part(tf.cast(equal, tf.float32), -1, 0), axis=2), 1)


def candidate_weights(scores: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
    """softmax of the scores [batch, K] over the valid candidates; all 0 where there is none."""
    if valid is None:
        return tf.nn.softmax(scores)
    return only(tf.nn.softmax(_or_least(scores, valid)), valid)


def only(values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """values, and 0 where the mask of the same shape is False, even for what is not finite there."""
    return values if mask is None else tf.where(tf.cast(mask, tf.bool), values, tf.zeros_like(values))


# --- Reinforcement learning -----------------------------------------------------------------------------------------


def reinforce(log_probs: tf.Tensor, rewards: tf.Tensor, baseline: tf.Tensor, valid: tf.Tensor | None = None
              ) -> tf.Tensor:
    """−Σ_k log p_k (R_k − b), [batch].

    Args:
      log_probs: of whole candidates, [batch, K].
      rewards: R, [batch, K]: sentence BLEU.
      baseline: b, [batch] or [batch, K]. It gets no gradient here: `baseline_loss` trains one.
      valid: bool [batch, K].

    Source: L2T-DLF, section 4.2, L_rl, with the candidate subset 𝒴; with samples for candidates, REINFORCE.
    """
    baseline = tf.convert_to_tensor(baseline, log_probs.dtype)
    if baseline.shape.rank == 1:
        baseline = baseline[:, None]
    advantages = _fixed(rewards, log_probs) - tf.stop_gradient(baseline)
    return -tf.reduce_sum(only(log_probs, valid) * only(advantages, valid), axis=1)


def mixer_mask(length: int | tf.Tensor, cross_entropy_steps: int | tf.Tensor) -> tf.Tensor:
    """Which of `length` positions are taught by the reference: the first `cross_entropy_steps`, bool [length].

    MIXER begins with all of them and takes a few away every epoch.
    """
    return tf.range(length) < cross_entropy_steps


def token_reinforce(log_probs: tf.Tensor, rewards: tf.Tensor, baseline: tf.Tensor, mask: tf.Tensor,
                    cross_entropy_steps: int | tf.Tensor = 0) -> tf.Tensor:
    """REINFORCE with a baseline for every token, after a prefix of the reference (MIXER), [batch].

        −Σ_{t≤s} log p_t − Σ_{t>s} (R_t − b_t) log p_t

    Args:
      log_probs: of the tokens of one sequence a sentence, [batch, T]: the reference's first s tokens, then a sample
        that goes on from there.
      rewards: R_t, [batch, T]: BLEU of the sequence at every position, or what is still to come of it.
      baseline: b_t, [batch, T]; no gradient goes into it.
      mask: bool [batch, T]: the tokens, EOS among them.
      cross_entropy_steps: s; 0 for REINFORCE alone, T for the log likelihood alone.

    Source: Ranzato et al., "Sequence level training with recurrent neural networks", ICLR 2016, section 3.2.
    """
    advantages = _fixed(rewards, log_probs) - tf.stop_gradient(baseline)
    taught = mixer_mask(tf.shape(log_probs)[1], cross_entropy_steps)[None]
    weights = tf.where(taught, tf.ones_like(advantages), advantages)
    return -tf.reduce_sum(only(log_probs, mask) * only(weights, mask), axis=1)


def baseline_loss(baseline: tf.Tensor, rewards: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Σ_t (b_t − R_t)², [batch]: the regression that trains the baseline of `token_reinforce`.

    Its input should be the decoder's state without its gradient, or it trains the student, too.

    Args:
      baseline: b_t, [batch, T].
      rewards: R_t, [batch, T]; no gradient goes into them.
      mask: bool [batch, T].

    Source: Ranzato et al., ICLR 2016, section 3.1.1.
    """
    return tf.reduce_sum(tf.square(only(baseline - _fixed(rewards, baseline), mask)), axis=1)


# --- Over a set of candidates ---------------------------------------------------------------------------------------


def minimum_risk(log_probs: tf.Tensor, costs: tf.Tensor, alpha: float = 0.005, valid: tf.Tensor | None = None
                 ) -> tf.Tensor:
    """Σ_k Q_k c_k with Q_k = p_k^α / Σ_j p_j^α, [batch].

    Args:
      log_probs: of whole candidates, [batch, K], which should be distinct (`unique_candidates`).
      costs: c, [batch, K]: 1 − sentence BLEU.
      alpha: α > 0: how sharp Q is; p of whole sentences differ by many orders of magnitude.
      valid: bool [batch, K].

    Raises:
      ValueError: for α ≤ 0.

    Source: Shen et al., "Minimum risk training for neural machine translation", ACL 2016, equations (8) and (9).
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be a number > 0; received {alpha!r}.")
    return risk(alpha * log_probs, costs, valid)


def risk(scores: tf.Tensor, costs: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
    """Σ_k softmax(s)_k c_k, [batch].

    Args:
      scores: s, [batch, K]: log probability of a candidate over its length, as in the three losses below.
      costs: c, [batch, K]: 1 − sentence BLEU.
      valid: bool [batch, K].

    Source: Edunov et al., "Classical structured prediction losses for sequence to sequence learning", NAACL 2018,
    section 3.2, as the losses below. s there is the length-averaged log probability, and u* the candidate that costs
    least, which stands for the reference: the first, if several do.
    """
    return tf.reduce_sum(candidate_weights(scores, valid) * only(_fixed(costs, scores), valid), axis=1)


def sequence_nll(scores: tf.Tensor, costs: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
    """−s(u*) + log Σ_u exp s(u), [batch]. Arguments and source as of `risk`."""
    return _any_valid(tf.reduce_logsumexp(_or_least(scores, valid), axis=1) - _of_best(scores, costs, valid), valid)


def softmax_margin(scores: tf.Tensor, costs: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
    """−s(u*) + log Σ_u exp(s(u) + c(u)), [batch]: costly candidates must be less probable still.

    Arguments and source as of `risk`.
    """
    augmented = tf.reduce_logsumexp(_or_least(scores + _fixed(costs, scores), valid), axis=1)
    return _any_valid(augmented - _of_best(scores, costs, valid), valid)


def max_margin(scores: tf.Tensor, costs: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
    """max_u [s(u) + c(u)] − (s(u*) + c(u*)), [batch], which is at least 0.

    u* must be more probable than every other candidate by what the other one costs more. Arguments and source as of
    `risk`; as in the authors' code, the candidate that counts is the one that violates this most.
    """
    augmented = scores + _fixed(costs, scores)
    return _any_valid(tf.reduce_max(_or_least(augmented, valid), axis=1) - _of_best(augmented, costs, valid), valid)


def mixed(token_loss: tf.Tensor, sequence_loss: tf.Tensor, alpha: float) -> tf.Tensor:
    """α · token loss + (1 − α) · sequence loss.

    Args:
      alpha: α in [0, 1]; Edunov et al. take 0.4, and 0.5 for `risk`, with the token loss an average over tokens.

    Raises:
      ValueError: for α out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1]; received {alpha!r}.")
    return alpha * token_loss + (1 - alpha) * sequence_loss


def _fixed(costs: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(tf.cast(costs, scores.dtype))


def _or_least(values: tf.Tensor, valid: tf.Tensor | None) -> tf.Tensor:
    """Invalid ones far below all others, but finite: a row of −inf has no softmax."""
    if valid is None:
        return values
    return tf.where(tf.cast(valid, tf.bool), values, tf.constant(values.dtype.min / 2, values.dtype))


def _any_valid(losses: tf.Tensor, valid: tf.Tensor | None) -> tf.Tensor:
    return losses if valid is None else only(losses, tf.reduce_any(tf.cast(valid, tf.bool), axis=1))


def _of_best(values: tf.Tensor, costs: tf.Tensor, valid: tf.Tensor | None) -> tf.Tensor:
    """values[u*], [batch]."""
    costs = tf.convert_to_tensor(costs)
    if valid is not None:
        costs = tf.where(tf.cast(valid, tf.bool), costs, costs.dtype.max)
    return tf.gather(values, tf.argmin(costs, axis=1), batch_dims=1)
