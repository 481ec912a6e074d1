"""The status s_t of a translation student (L2T-DLF, section 4.2): t/T, and BLEU on train and on dev."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_l2t.hypergradient import StatusFeatures, StudentState
from tf_l2t.translation.batches import TokenPair
from tf_l2t.translation.bleu import corpus_bleu, ngram_statistics

FEATURES = ("progress", "train_bleu", "dev_bleu")


def translation_features(decode_fn: Callable[..., tf.Tensor], train: TokenPair, dev: TokenPair, num_steps: int,
                         refresh_every: int, dtype: Any) -> StatusFeatures:
    """s_t, [3], refreshed before the steps 0, k, 2k, … and held in between.

    BLEU is that of the corpus of greedy translations, of subwords, in [0, 1], with sacrebleu's "exp" smoothing.

    Args:
      decode_fn: (params, non_trainable, source [batch, S]) -> translations, int32 [batch, T].
      train, dev: fixed samples.
      num_steps: T.
      refresh_every: k.
      dtype: of s_t.

    Raises:
      ValueError: for k below 1.
    """
    if refresh_every < 1:
        raise ValueError(f"refresh_every must be at least 1; received {refresh_every!r}.")

    def bleu(state: StudentState, pair: TokenPair) -> tf.Tensor:
        found = decode_fn(state.params, state.non_trainable, pair.source)
        return tf.cast(corpus_bleu(ngram_statistics(found, pair.target)), dtype)

    def features(state: StudentState) -> tuple[tf.Tensor, Any]:
        def fresh() -> tf.Tensor:
            progress = tf.minimum(tf.cast(state.step, dtype) / num_steps, 1)
            return tf.stack([progress, bleu(state, train), bleu(state, dev)])

        current = tf.cond(tf.equal(state.step % refresh_every, 0), fresh, lambda: state.status)
        current = tf.ensure_shape(current, [len(FEATURES)])
        return current, current

    return StatusFeatures(lambda: tf.zeros([len(FEATURES)], dtype), features, lambda status, metrics: status)
