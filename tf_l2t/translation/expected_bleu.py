"""Relaxed BLEU, which a teacher maximises: expected n-gram matches and lengths of a student's distributions.

At every position t there is a distribution p_t over the vocabulary, given as logits [batch, T, V] (log probabilities
will do: log_softmax leaves them as they are), and a sentence is taken to have its tokens drawn position by position,
independently. What the distributions are conditioned on is up to the caller: the reference (teacher forcing: one pass,
and the student is judged where it has made no mistake yet), or its own greedy translation, decoded without a gradient
and read again by teacher forcing (what it will be judged by; p_t at a fixed prefix is still not p_t at the prefixes
that other draws would have). In the first case T = R; a `mask` ends sentences where the prefix does: pass
`references != PAD`, or the same of the translation.

A sentence ends at EOS or PAD. With e_t = p_t(EOS) + p_t(PAD), the probability that it is longer than t − 1 tokens is
A_t = Π_{s≤t} (1 − e_s), and its n-gram at i is the reference's at j with probability

    q_n[i, j] = A_{i−1} Π_{k<n} p_{i+k}(y_{j+k})

Only the probabilities of reference tokens are needed: time and memory are O(batch · T · R) beside the logits.

The sampled form of the same objective is in `sampled_bleu`. First derivatives are what a teacher needs; the functions
are products, sums and smooth functions of them, so that the second ones are right too, away from the kinks that
`expected_ngram_statistics` names.
"""

from __future__ import annotations

import math

import tensorflow as tf

from tf_l2t.translation.bleu import ADDED, MAX_ORDER, ngram_equality, token_mask
from tf_l2t.translation.subwords import EOS, PAD
from tf_l2t.translation.token_losses import log_probs_at

EPSILON = 1e-6
SENTENCE_SMOOTHINGS = ("add_one", "add_one_all")


def expected_ngram_statistics(logits: tf.Tensor, references: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """The expectation of `ngram_statistics`, and the variance of the length.

        matches_n = Σ_j Σ_i q_n[i, j] min(1, r_j / (1 + Σ_{i'≠i} q_n[i', j]))   over distinct n-grams j of the reference
        totals_n  = Σ_{t≥n} A_t
        length    = Σ_t A_t
        variance  = Σ_t A_t ((1 − A_t) + 2 Σ_{s<t} (1 − A_s))

    with r_j how often the reference has n-gram j. Totals, length and variance are exact. The matches are a plug-in: the
    number of other occurrences is replaced by its mean inside the clipping. It is exact where every q is 0 or 1, and
    where an n-gram can occur once only. Else it may lie on either side of E[min(N_j, r_j)] (`expected_clipped_count`):
    for r = 1 below it, by 23 % at most (2 occurrences expected, spread thinly over positions), for r > 1 above it, too,
    by about 12 % at most; for peaked distributions, by 2 % on average (a test states it). It has kinks, where r_j − 1
    others are expected exactly.

    Args:
      logits: [batch, T, V].
      references: integers [batch, R].
      mask: bool [batch, T], or None for all: a sentence ends where it is False.

    Returns:
      [batch, 11]: matches (n = 1 … 4), totals (n = 1 … 4), length, length of the reference, variance of the length.
    """
    probs, going_on = _probabilities(logits, references, mask)
    # Where a factor is 0, cumprod has no gradient for it; that of a logit is 0 there anyway, as EOS is sure.
    before = tf.math.cumprod(going_on, axis=1, exclusive=True)
    alive = before * going_on

    matches = []
    ngram_probs = before[:, :, None] * probs
    for n, same in enumerate(ngram_equality(references, references), start=1):
        if n > 1:
            ngram_probs = ngram_probs[:, :-1, :-1] * probs[:, n - 1:, n - 1:]
        same = tf.cast(same, logits.dtype)
        counts = tf.reduce_sum(same, axis=2)[:, None, :]
        # Of equal n-grams the first stands for all: it is the one without an equal up to itself but itself.
        first = tf.cast(tf.equal(tf.reduce_sum(tf.linalg.band_part(same, -1, 0), axis=2), 1), logits.dtype)[:, None, :]
        others = tf.reduce_sum(ngram_probs, axis=1, keepdims=True) - ngram_probs
        clipped = ngram_probs * tf.minimum(tf.ones_like(others), counts / (1 + others))
        matches.append(tf.reduce_sum(first * clipped, axis=[1, 2]))

    totals = [tf.reduce_sum(alive[:, n:], axis=1) for n in range(MAX_ORDER)]
    ended = 1 - alive
    # Sums of what cannot be negative: E[L²] − E[L]² would lose its digits in float32.
    variance = tf.reduce_sum(alive * (ended + 2 * tf.cumsum(ended, axis=1, exclusive=True)), axis=1)
    reference_lengths = tf.reduce_sum(tf.cast(token_mask(references), logits.dtype), axis=1)
    return tf.stack([*matches, *totals, totals[0], reference_lengths, variance], axis=-1)


def relaxed_corpus_bleu(statistics: tf.Tensor, log: bool = False, epsilon: float = EPSILON) -> tf.Tensor:
    """Relaxed BLEU of summed expectations, a scalar.

        log BLEU = ¼ Σ_n (log(m_n + ε) − log max(t_n, 1)) − h(r / c − 1)
        h(x) = (x + √(x² + v)) / 2,  v = (2 / π) (r / c²)² Var[c] + 1e-12

    with m, t, c, r the sums of matches, totals and lengths. h is max(0, x), the brevity penalty, smoothed by as much as
    the length is uncertain: at x = 0 it is the mean of the penalty if c has a normal distribution. For distributions
    that are sure (Var[c] = 0) BLEU is that of `corpus_bleu` with smoothing "none" to a relative ε, if it is not 0.

    Args:
      statistics: of `expected_ngram_statistics`, [batch, 11]; those of several batches may be put together.
      log: log BLEU, in nats: it keeps a gradient where BLEU is close to 0.
      epsilon: ε, in matches; where there are far fewer, there is no gradient.
    """
    matches, totals, length, reference, variance = _split(tf.reduce_sum(statistics, axis=0))
    # A total below 1 counts as 1: hypotheses that are too short to have a 4-gram are to score nothing.
    precisions = tf.math.log(matches + epsilon) - tf.math.log(tf.maximum(totals, 1.0))
    value = tf.reduce_mean(precisions, axis=-1) - _brevity(length, reference, variance, epsilon)
    return value if log else tf.exp(value)


def expected_corpus_bleu(logits: tf.Tensor, references: tf.Tensor, mask: tf.Tensor | None = None, log: bool = False,
                         epsilon: float = EPSILON) -> tf.Tensor:
    """`relaxed_corpus_bleu` of the `expected_ngram_statistics` of a batch, a scalar; see there.

    It is not the expectation of BLEU, but BLEU of expectations: the two come together as the batch grows.

    Args:
      logits: [batch, T, V].
      references: integers [batch, R].
      mask: bool [batch, T], or None for all: a sentence ends where it is False.
      log: log BLEU, in nats.
      epsilon: ε, in matches.
    """
    return relaxed_corpus_bleu(expected_ngram_statistics(logits, references, mask), log, epsilon)


def expected_sentence_bleu(logits: tf.Tensor, references: tf.Tensor, mask: tf.Tensor | None = None,
                           smoothing: str = "add_one", epsilon: float = EPSILON) -> tf.Tensor:
    """The mean over sentences of sentence BLEU with expectations for counts, a scalar in [0, 1].

        BLEU = exp(¼ Σ_n log((m_n + s_n) / (t_n + s_n)) − h(r / c − 1))

    with h as in `relaxed_corpus_bleu`, and s_n = 1, but s_1 = ε for "add_one". For distributions that are sure it is
    the mean of `sentence_bleu` with that smoothing, where a token is right.

    Args:
      logits: [batch, T, V].
      references: integers [batch, R].
      mask: bool [batch, T], or None for all: a sentence ends where it is False.
      smoothing: "add_one" or "add_one_all".
      epsilon: ε, in matches.

    Raises:
      ValueError: for another smoothing: they are not smooth in the counts.
    """
    if smoothing not in SENTENCE_SMOOTHINGS:
        raise ValueError(f"smoothing must be one of {SENTENCE_SMOOTHINGS}, which are smooth in the counts; received "
                         f"{smoothing!r}.")
    matches, totals, length, reference, variance = _split(expected_ngram_statistics(logits, references, mask))
    added = tf.maximum(tf.constant(ADDED[smoothing], matches.dtype), tf.constant(epsilon, matches.dtype))
    precisions = tf.math.log(matches + added) - tf.math.log(totals + added)
    return tf.reduce_mean(tf.exp(tf.reduce_mean(precisions, axis=-1) - _brevity(length, reference, variance, epsilon)))


def expected_clipped_count(probs: tf.Tensor, clip: int) -> tf.Tensor:
    """E[min(N, r)] of N = Σ_t X_t, where the X_t are independent and 1 with probability p_t; exact.

        E[min(N, r)] = Σ_t p_t P(N_{t−1} < r),  P(N_t = k) = (1 − p_t) P(N_{t−1} = k) + p_t P(N_{t−1} = k − 1)

    with N_t the sum of the first t: the Poisson-binomial recursion. For n = 1 and sentences of a fixed length it is
    what the plug-in of `expected_ngram_statistics` stands for; for n ≥ 2 occurrences that overlap are not independent.
    It takes T steps one after the other, each O(r).

    Args:
      probs: p_t, [..., T].
      clip: r ≥ 1, how often the reference has the token.

    Returns:
      [...].

    Raises:
      ValueError: for a clip below 1.
    """
    if not clip >= 1:
        raise ValueError(f"clip must be a whole number >= 1; received {clip!r}.")
    zero = tf.zeros_like(probs[..., 0])
    start = tf.stack([zero + 1] + [zero] * (clip - 1), axis=-1)

    def step(state: tuple[tf.Tensor, tf.Tensor], prob: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        expected, fewer = state  # P(N = k) for k < r
        expected += prob * tf.reduce_sum(fewer, axis=-1)
        one_more = tf.concat([zero[..., None], fewer[..., :-1]], axis=-1)
        return expected, (1 - prob)[..., None] * fewer + prob[..., None] * one_more

    positions_first = tf.transpose(probs, tf.roll(tf.range(tf.rank(probs)), 1, 0))
    return tf.foldl(step, positions_first, (zero, start))[0]


def _probabilities(logits: tf.Tensor, references: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """p_t(y_j), [batch, T, R], and 1 − e_t, [batch, T]."""
    batch, length = tf.shape(logits)[0], tf.shape(logits)[1]
    references = tf.convert_to_tensor(references)
    stops = tf.broadcast_to(tf.constant([[EOS, PAD]], references.dtype), [batch, 2])
    wanted = tf.concat([references, stops], axis=1)
    wanted = tf.broadcast_to(wanted[:, None, :], [batch, length, tf.shape(wanted)[1]])
    probs = tf.exp(log_probs_at(logits, wanted))
    # Rounding may take the sum above 1.
    going_on = tf.maximum(1 - tf.reduce_sum(probs[:, :, -2:], axis=-1), 0.0)
    probs = probs[:, :, :-2]
    if mask is None:
        return probs, going_on
    mask = tf.cast(mask, tf.bool)
    return tf.where(mask[:, :, None], probs, 0.0), tf.where(mask, going_on, 0.0)


def _brevity(length: tf.Tensor, reference: tf.Tensor, variance: tf.Tensor, epsilon: float) -> tf.Tensor:
    """h(r / c − 1), the negative logarithm of the brevity penalty."""
    length = tf.maximum(length, tf.constant(epsilon, length.dtype))
    short = reference / length - 1
    spread = (2 / math.pi) * tf.square(reference / tf.square(length)) * variance + 1e-12
    return (short + tf.sqrt(tf.square(short) + spread)) / 2


def _split(statistics: tf.Tensor) -> tuple[tf.Tensor, ...]:
    matches, totals, rest = tf.split(statistics, [MAX_ORDER, MAX_ORDER, 3], axis=-1)
    return matches, totals, rest[..., 0], rest[..., 1], rest[..., 2]
