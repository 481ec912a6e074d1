"""Mini-batches as a pure function of (seed, step): the reverse sweep, a resumed run and Keras `fit` get the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_l2t.data.augment import Augment


def batch_indices(seed: tf.Tensor, step: tf.Tensor, batch_size: int, num_examples: int) -> tf.Tensor:
    """The indices, int64 [batch_size], of mini-batch `step`.

    Epoch after epoch of n = num_examples draws, each a permutation of its own (a keyed bijection of [0, n), so nothing
    is stored); a batch may straddle two epochs, and every epoch uses every example exactly once.
    """
    position = tf.cast(step, tf.int64) * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch, index = position // num_examples, position % num_examples
    seed = tf.cast(seed, tf.int64)
    key = tf.stack([tf.broadcast_to(seed, [batch_size]), epoch, tf.zeros_like(epoch)], axis=1)
    # The op behind tf.random.experimental.index_shuffle, whose wrapper mispads one seed per index.
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=tf.constant(num_examples - 1, tf.int64))


def array_batches(x: Any, y: Any, batch_size: int, augment: Augment | None = None, index: bool = False
                  ) -> Callable[..., Any]:
    """A function (seed, step) -> (x [batch, ...], y [batch]) over arrays held in memory.

    Args:
      x, y: [examples, ...] and [examples].
      batch_size: at most the number of examples.
      augment: (x [batch, ...], seed int64 [2]) -> x, a pure function (`tf.image.stateless_*` take such a seed); it
        gets another seed at every step.
      index: whether the examples' indices come as a third part, int64 [batch].

    Raises:
      ValueError: if `batch_size` is below 1 or above the number of examples.
    """
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    num_examples = int(x.shape[0])
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"batch_size must be between 1 and the {num_examples} train examples; received "
                         f"{batch_size!r}.")

    def batch_fn(seed: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        indices = batch_indices(seed, step, batch_size, num_examples)
        images, labels = tf.gather(x, indices), tf.gather(y, indices)
        if augment is not None:
            images = augment(images, tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)]))
        return (images, labels, indices) if index else (images, labels)

    return batch_fn


def batch_dataset(batch_fn: Callable[..., Any], seed: int, stop: int, first: int = 0) -> tf.data.Dataset:
    """The batches of the steps first … stop − 1 as a `tf.data.Dataset` for Keras `fit` (with one epoch)."""
    seed = tf.constant(seed, tf.int64)
    # Autograph would read source files, which may have changed since.
    batch = tf.autograph.experimental.do_not_convert(lambda step: batch_fn(seed, step))
    options = tf.data.Options()
    # The tuner's thread is waited for when the data end, and it sleeps up to a minute.
    options.autotune.enabled = False
    return tf.data.Dataset.range(first, stop).map(batch, num_parallel_calls=1).prefetch(2).with_options(options)
