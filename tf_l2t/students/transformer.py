"""The Transformer translation student of the L2T-DLF paper (section 4.2, appendix B.3), of keras_nlp layers."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_l2t.students.decoder_steps import KeysValues, decoder_step, nothing, source_keys_values
from tf_l2t.students.translator import Translator, projected


class Memory(NamedTuple):
    """The encoder's outputs, [batch, S, width], and which of them are tokens, bool [batch, S]."""

    values: Any
    mask: Any


class Caches(NamedTuple):
    """Keys and values of every decoder layer, of the tokens so far and of the source."""

    own: tuple[KeysValues, ...]
    source: tuple[KeysValues, ...]


@keras.saving.register_keras_serializable(package="tf_l2t")
class Transformer(Translator):
    """Encoder and decoder of keras_nlp's Transformer layers, with sinusoidal positions.

    Embeddings, drawn from N(0, 1 / width), are multiplied by √width before positions are added; source, target and the
    logits' kernel are one matrix if `tied`. Layers are normalised after the residual sum, as published, or before it
    with `normalize_first`, behind which both stacks end in a normalisation: plain SGD trains those more easily.

    Args:
      vocabulary_size: V.
      num_layers: of encoder and decoder.
      width, hidden, num_heads: of the layers, hidden that of the feed-forward ones. The width is a multiple of
        num_heads and of 2.
      dropout: of embeddings and behind every sublayer, and of attention.
      tied: see above.
      normalize_first: see above.

    Raises:
      ValueError: for a number out of range.

    Source: Vaswani et al., "Attention is all you need", 2017; sizes of tensor2tensor's transformer_small but for the
    layers, 6 in the L2T-DLF paper.
    """

    def __init__(self, vocabulary_size: int, num_layers: int = 6, width: int = 256, hidden: int = 1024,
                 num_heads: int = 4, dropout: float = 0.0, tied: bool = True, normalize_first: bool = False,
                 **kwargs: Any):
        import keras_nlp

        super().__init__(vocabulary_size, **kwargs)
        if min(num_layers, width, hidden, num_heads) < 1 or width % num_heads or width % 2:
            raise ValueError("num_layers, width, hidden and num_heads must be at least 1, the width a multiple of "
                             f"num_heads and of 2; received {num_layers!r}, {width!r}, {hidden!r}, {num_heads!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); received {dropout!r}.")
        self.num_layers, self.width, self.hidden, self.num_heads = num_layers, width, hidden, num_heads
        self.dropout, self.tied, self.normalize_first = dropout, tied, normalize_first
        options = {"intermediate_dim": hidden, "num_heads": num_heads, "dropout": dropout,
                   "normalize_first": normalize_first}
        self.encoder = [keras_nlp.layers.TransformerEncoder(**options, name=f"encoder_{i}") for i in range(num_layers)]
        self.decoder = [keras_nlp.layers.TransformerDecoder(**options, name=f"decoder_{i}") for i in range(num_layers)]
        sequence = (None, None, width)
        for layer in self.encoder:
            layer.build(sequence)
        for layer in self.decoder:
            layer.build(sequence, sequence)
        names = ("embedding",) if tied else ("source_embedding", "target_embedding", "logits_kernel")
        # An initializer each: one of them draws the same numbers every time.
        self.tables = [self.add_weight(name=name, shape=(vocabulary_size, width),
                                       initializer=keras.initializers.RandomNormal(stddev=width ** -0.5))
                       for name in names]
        self.logits_bias = self.add_weight(name="logits_bias", shape=(vocabulary_size,), initializer="zeros")
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5) for _ in range(2)] if normalize_first else []
        for norm in self.norms:
            norm.build(sequence)
        self.dropouts = [keras.layers.Dropout(dropout) for _ in range(2)]
        self.built = True

    def _embedded(self, tokens: Any, table: Any, first: Any, training: bool, dropout: Any) -> Any:
        x = tf.gather(table.value, tokens) * self.width ** 0.5
        return dropout(x + positions(first, tf.shape(tokens)[1], self.width, x.dtype), training=training)

    def encode(self, source: Any, training: bool = False) -> Memory:
        mask = tf.not_equal(source, 0)
        x = self._embedded(source, self.tables[0], 0, training, self.dropouts[0])
        for layer in self.encoder:
            x = layer(x, padding_mask=mask, training=training)
        return Memory(self.norms[0](x) if self.norms else x, mask)

    def last_hidden(self, memory: Memory, previous: Any, training: bool = False) -> Any:
        x = self._embedded(previous, self.tables[min(1, len(self.tables) - 1)], 0, training, self.dropouts[1])
        for layer in self.decoder:  # padding of `previous` comes last: no token before it sees it
            x = layer(x, memory.values, encoder_padding_mask=memory.mask, training=training)
        return self._normed(x)

    def start(self, memory: Memory, max_length: int) -> Caches:
        return Caches(tuple(nothing(layer, memory.values) for layer in self.decoder),
                      tuple(source_keys_values(layer, memory.values) for layer in self.decoder))

    def step(self, memory: Memory, state: Caches, tokens: Any, position: Any) -> tuple[Any, Caches]:
        x = self._embedded(tokens[:, tf.newaxis], self.tables[min(1, len(self.tables) - 1)], position, False,
                           self.dropouts[1])
        own = []
        for layer, before, source in zip(self.decoder, *state, strict=True):
            x, up_to_now = decoder_step(layer, x, before, source, memory.mask)
            own.append(up_to_now)
        return self.logits(self._normed(x))[:, 0], state._replace(own=tuple(own))

    def picked(self, state: Caches, rows: Any) -> Caches:
        return state._replace(own=super().picked(state.own, rows))  # the source's are the same

    def _normed(self, x: Any) -> Any:
        return self.norms[1](x) if self.norms else x

    def logits(self, hidden: Any) -> Any:
        return projected(hidden, tf.transpose(self.tables[-1].value), self.logits_bias.value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "num_layers": self.num_layers,
                "width": self.width, "hidden": self.hidden, "num_heads": self.num_heads, "dropout": self.dropout,
                "tied": self.tied, "normalize_first": self.normalize_first}


def positions(first: Any, length: Any, width: int, dtype: Any) -> Any:
    """Sinusoidal positions first … first + length − 1, [length, width]: sines, then cosines."""
    rates = tf.exp(tf.range(width // 2, dtype=dtype) * (-2 / width) * tf.math.log(tf.constant(10_000, dtype)))
    angles = tf.cast(first + tf.range(length), dtype)[:, tf.newaxis] * rates
    return tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)


def transformer(vocabulary_size: int, **options: Any) -> Transformer:
    """The paper's Transformer: 6 + 6 layers, width 256, feed-forward 1024, 4 heads."""
    return Transformer(vocabulary_size, name="transformer", **options)
