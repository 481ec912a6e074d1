"""One token through a keras_nlp `TransformerDecoder`, with keys and values kept as attention reads them.

The layer's own caches are of a fixed length, cut apart, written and stacked anew at every step, and so are those of the
source; that takes longer than the products do. Here keys and values grow by the token, and the source's stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class KeysValues(NamedTuple):
    """Of one attention, [batch, heads, length, size] each."""

    keys: Any
    values: Any


def keys_values(attention: Any, x: Any) -> KeysValues:
    """Keys and values of the vectors x, [batch, length, width]."""
    return KeysValues(*(tf.transpose(dense(x), [0, 2, 1, 3]) for dense in (attention.key_dense, attention.value_dense)))


def nothing(layer: Any, memory: Any) -> KeysValues:
    """Of no token yet, for a decoder layer's first attention and the rows of `memory`."""
    return keys_values(layer._self_attention_layer, memory[:, :0])


def source_keys_values(layer: Any, memory: Any) -> KeysValues:
    """Of the source, `memory` [batch, length, width], for a decoder layer's second attention."""
    return keys_values(layer._cross_attention_layer, memory)


def decoder_step(layer: Any, x: Any, own: KeysValues, source: KeysValues, mask: Any) -> tuple[Any, KeysValues]:
    """What a decoder layer makes of the next token, and the keys and values of the tokens up to it.

    Args:
      layer: a `keras_nlp.layers.TransformerDecoder`, of whose parts keras_nlp has no public names.
      x: of the token, [batch, 1, width].
      own: of the tokens before.
      source: of the source.
      mask: which of the source are tokens, bool [batch, length].
    """
    def block(x: Any, norm: Any, inner: Any) -> Any:
        return x + inner(norm(x)) if layer.normalize_first else norm(x + inner(x))

    def of_itself(x: Any) -> Any:
        nonlocal own
        attention = layer._self_attention_layer
        own = KeysValues(*(tf.concat(pair, axis=2) for pair in zip(own, keys_values(attention, x), strict=True)))
        return attend(attention, x, own)

    x = block(x, layer._self_attention_layer_norm, of_itself)
    x = block(x, layer._cross_attention_layer_norm,
              lambda x: attend(layer._cross_attention_layer, x, source, mask[:, tf.newaxis, tf.newaxis]))
    x = block(x, layer._feedforward_layer_norm,
              lambda x: layer._feedforward_output_dense(layer._feedforward_intermediate_dense(x)))
    return x, own


def attend(attention: Any, x: Any, to: KeysValues, mask: Any = None) -> Any:
    """softmax(q kᵀ / √size) v of every head, projected: [batch, 1, width]."""
    query = tf.transpose(attention.query_dense(x), [0, 2, 1, 3]) / attention.key_dim ** 0.5
    scores = tf.matmul(query, to.keys, transpose_b=True)
    if mask is not None:
        scores = tf.where(mask, scores, scores.dtype.min)
    found = tf.matmul(tf.nn.softmax(scores), to.values)
    return attention.output_dense(tf.transpose(found, [0, 2, 1, 3]))
