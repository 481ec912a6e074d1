"""The status s_t of a translation student (L2T-DLF, section 4.2): t/T, and BLEU on train and on dev."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_l2t.hypergradient import StatusFeatures, StudentState
from tf_l2t.students.translator import Translator
from tf_l2t.translation.batches import TokenPair
from tf_l2t.translation.bleu import corpus_bleu, ngram_statistics
from tf_l2t.translation.decoding import greedy, length_limits

FEATURES = ("progress", "train_bleu", "dev_bleu")


def status_bleu(model: Translator, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """BLEU of a model's greedy translations, of subwords, in [0, 1], with sacrebleu's "exp" smoothing.

    Args:
      source, target: int32 [pairs, …], padded.
    """
    found = greedy(model, source, length_limits(source))
    return corpus_bleu(ngram_statistics(found, target))


def status_vector(step: tf.Tensor, num_steps: int, train_bleu: tf.Tensor, dev_bleu: tf.Tensor, dtype: Any) -> tf.Tensor:
    """s_t, [3]; steps beyond `num_steps` count as the last one."""
    progress = tf.minimum(tf.cast(step, dtype) / num_steps, 1)
    return tf.stack([progress, tf.cast(train_bleu, dtype), tf.cast(dev_bleu, dtype)])


def translation_features(bleu_fn: Callable[..., tf.Tensor], train: TokenPair, dev: TokenPair, num_steps: int,
                         refresh_every: int, dtype: Any) -> StatusFeatures:
    """s_t, refreshed before the steps 0, k, 2k, … and held in between.

    Args:
      bleu_fn: (params, non_trainable, source, target) -> `status_bleu` of these weights.
      train, dev: fixed samples.
      num_steps: T.
      refresh_every: k.
      dtype: of s_t.

    Raises:
      ValueError: for k below 1.
    """
    if refresh_every < 1:
        raise ValueError(f"refresh_every must be at least 1; received {refresh_every!r}.")

    def features(state: StudentState) -> tuple[tf.Tensor, Any]:
        def fresh() -> tf.Tensor:
            train_bleu, dev_bleu = (bleu_fn(state.params, state.non_trainable, *pair) for pair in (train, dev))
            return status_vector(state.step, num_steps, train_bleu, dev_bleu, dtype)

        current = tf.cond(tf.equal(state.step % refresh_every, 0), fresh, lambda: state.status)
        current = tf.ensure_shape(current, [len(FEATURES)])
        return current, current

    return StatusFeatures(lambda: tf.zeros([len(FEATURES)], dtype), features, lambda status, metrics: status)
