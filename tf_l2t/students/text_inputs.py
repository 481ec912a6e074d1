"""What text classifiers derive from token ids: padding, segments, sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf


class SpecialTokens(NamedTuple):
    """Ids of a word-piece vocabulary in BERT's layout, [CLS] first [SEP] or [CLS] first [SEP] second [SEP], padded."""

    pad: int = 0
    start: int = 101
    separator: int = 102


BERT_TOKENS = SpecialTokens()  # of the published vocabularies
"""The special tokens of BERT's published vocabularies."""


def segments(tokens: tf.Tensor, special: SpecialTokens) -> tuple[tf.Tensor, tf.Tensor]:
    """What `Segments` returns."""
    mask = tf.cast(tokens != special.pad, tf.int32)
    ended = tf.cumsum(tf.cast(tokens == special.separator, tf.int32), axis=1, exclusive=True)
    return tf.minimum(ended, 1) * mask, mask


@keras.saving.register_keras_serializable(package="tf_l2t")
class Segments(keras.layers.Layer):
    """Token ids [batch, length] -> segment ids, 1 from behind the first separator on, and padding mask, 1 for tokens;
    both int32 [batch, length], 0 on padding.

    Args:
      special: a `SpecialTokens`.
    """

    def __init__(self, special: Any = BERT_TOKENS, **options: Any):
        super().__init__(**options)
        self.special = SpecialTokens(*special)

    def call(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return segments(tokens, self.special)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "special": list(self.special)}


@keras.saving.register_keras_serializable(package="tf_l2t")
class Sentences(Segments):
    """Token ids [batch, length] -> the first and the second sentence without special tokens, from the left, padded;
    int32 [batch, length] each. The second is empty where there is none.

    Args:
      special: a `SpecialTokens`.
    """

    def call(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        number_of, mask = segments(tokens, self.special)
        plain = tf.cast((tokens != self.special.start) & (tokens != self.special.separator), tf.int32) * mask
        length = tf.shape(tokens)[1]
        found = []
        for number in (0, 1):
            kept = plain * tf.cast(number_of == number, tf.int32)
            # The kept tokens' places, in order, before all others.
            order = tf.argsort(1 - kept, axis=1, stable=True)
            inside = tf.range(length)[tf.newaxis] < tf.reduce_sum(kept, axis=1, keepdims=True)
            found.append(tf.where(inside, tf.gather(tokens, order, batch_dims=1), self.special.pad))
        return found[0], found[1]


@keras.saving.register_keras_serializable(package="tf_l2t")
class MaxOverTime(keras.layers.Layer):
    """[batch, length, d] and ids [batch, length] -> the maximum over tokens, [batch, d]; 0 where there is none."""

    def __init__(self, pad: int = 0, **options: Any):
        super().__init__(**options)
        self.pad = pad
        self.supports_masking = True

    def compute_mask(self, *inputs: Any) -> None:
        """There is no time left to mask."""

    def call(self, states: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        real = (tokens != self.pad)[..., tf.newaxis]
        highest = tf.reduce_max(tf.where(real, states, states.dtype.min), axis=1)
        return tf.where(tf.reduce_any(real, axis=1), highest, tf.zeros_like(highest))

    def compute_output_shape(self, states_shape: Any, tokens_shape: Any = None) -> Any:
        return states_shape[0], states_shape[-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad": self.pad}
