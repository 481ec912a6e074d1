"""Actor-critic for translation: a critic Q_t(a) of the next token takes the place of sampled rewards.

The student (the actor) translates; the critic, which may read the reference, learns what BLEU each next token will
bring from here on, and the student moves its probability to the tokens that the critic values. A trainer pre-trains
the student by likelihood, then the critic with the student fixed, then both; targets come from copies of both that
follow slowly (rate 0.001).

Rewards are `bleu.prefix_rewards`. At every position t of a sampled translation there are log probabilities and values
of all tokens, [batch, T, V]; `mask` [batch, T] is True for the tokens, EOS among them.

Source: Bahdanau et al., "An actor-critic algorithm for sequence prediction", ICLR 2017, sections 3.1 to 3.3.
"""

from __future__ import annotations

import tensorflow as tf

from tf_l2t.translation.sequence_losses import only
from tf_l2t.translation.token_losses import chosen


def critic_targets(rewards: tf.Tensor, probs: tf.Tensor, target_q: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """q_t = r_t + Σ_a p'_{t+1}(a) Q'_{t+1}(a), [batch, T]; no gradient goes through it.

    Behind the last token there is nothing to come: q_t = r_t. Where the mask is False q_t is 0.

    Args:
      rewards: r_t, [batch, T].
      probs: p', of the student or its slow copy, [batch, T, V].
      target_q: Q', of the slow copy of the critic, [batch, T, V].
      mask: bool [batch, T].
    """
    values = only(tf.reduce_sum(probs * target_q, axis=-1), mask)
    later = tf.concat([values[:, 1:], tf.zeros_like(values[:, :1])], axis=1)
    return tf.stop_gradient(only(tf.cast(rewards, values.dtype) + later, mask))


def critic_loss(q: tf.Tensor, actions: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor, penalty: float = 1e-3
                ) -> tf.Tensor:
    """Σ_t (Q_t(y_t) − q_t)² + λ Σ_a (Q_t(a) − mean_b Q_t(b))², [batch].

    The second part keeps the values of tokens that are hardly ever sampled from drifting off.

    Args:
      q: Q, [batch, T, V].
      actions: y, the sampled tokens, integers [batch, T].
      targets: of `critic_targets`, [batch, T].
      mask: bool [batch, T].
      penalty: λ ≥ 0; the paper takes 1e-3.

    Raises:
      ValueError: for a negative λ.
    """
    if not penalty >= 0:
        raise ValueError(f"penalty must be a number >= 0; received {penalty!r}.")
    errors = tf.square(chosen(q, actions) - tf.stop_gradient(tf.cast(targets, q.dtype)))
    spread = tf.reduce_sum(tf.square(q - tf.reduce_mean(q, axis=-1, keepdims=True)), axis=-1)
    return tf.reduce_sum(only(errors + penalty * spread, mask), axis=1)


def actor_loss(log_probs: tf.Tensor, q: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """−Σ_t Σ_a p_t(a) Q_t(a), [batch]; Q gets no gradient. A trainer adds a little of the token loss.

    Args:
      log_probs: log p, of the student, [batch, T, V].
      q: Q, [batch, T, V].
      mask: bool [batch, T].
    """
    return -tf.reduce_sum(only(tf.reduce_sum(tf.exp(log_probs) * tf.stop_gradient(q), axis=-1), mask), axis=1)
