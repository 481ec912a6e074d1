"""Text classifiers of a BERT encoder (keras_nlp), their inner tensors under names that distillation knows."""

from __future__ import annotations

from typing import Any

import keras

from tf_l2t.students.text_inputs import BERT_TOKENS, Segments


def bert_classifier(backbone: Any, num_classes: int = 2, num_layers: int | None = None, dropout: float | None = None,
                    special: Any = BERT_TOKENS) -> keras.Model:
    """Token ids [batch, length] -> logits [batch, classes], from the dense layer over [CLS].

    The classifier is made of the encoder's own layers, so that training it trains the encoder. Its taps
    (`tf_l2t.students.taps`) are `embeddings` and `hidden1` and on, [batch, length, width]; `attention1` and on, the
    scores before their softmax, [batch, heads, length, length]; `pooled` [batch, width]; `logits`.

    Args:
      backbone: a `keras_nlp.models.BertBackbone`.
      num_classes: C.
      num_layers: keep the first ones only; all if None.
      dropout: before the last layer; the encoder's if None.
      special: the vocabulary's `SpecialTokens`.

    Raises:
      ValueError: for more layers than the encoder has.
    """
    kept = backbone.num_layers if num_layers is None else num_layers
    if not 1 <= kept <= backbone.num_layers:
        raise ValueError(f"the encoder has {backbone.num_layers} layers; received num_layers={num_layers!r}.")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    segments, mask = Segments(special, name="segments")(tokens)
    words = backbone.token_embedding(tokens)
    x = backbone.embeddings_add((words, backbone.position_embedding(words), backbone.segment_embedding(segments)))
    x = keras.layers.Identity(name="embeddings")(backbone.embeddings_dropout(backbone.embeddings_layer_norm(x)))
    for number, layer in enumerate(backbone.transformer_layers[:kept], 1):
        x = keras.layers.Identity(name=f"hidden{number}")(layer(x, padding_mask=mask))
    x = keras.layers.Identity(name="pooled")(backbone.pooled_dense(x[:, 0]))
    x = keras.layers.Dropout(backbone.dropout if dropout is None else dropout, name="pooled_dropout")(x)
    initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    return keras.Model(tokens, keras.layers.Dense(num_classes, kernel_initializer=initializer, name="logits")(x),
                       name=f"bert{kept}")


class AttentionScores(keras.layers.Layer):
    """The scores q · k / √d of a keras_nlp `TransformerEncoder`, from what it is called with, inputs [batch, length,
    width] and the mask [batch, length], 0 for padding: [batch, heads, length, length], 0 where a key is padding.

    Its attention returns them behind the softmax alone; TinyBERT compares them before it (section 3.2 there).

    Args:
      encoder: the layer, whose weights these are; they are not this layer's own.
    """

    def __init__(self, encoder: Any, **options: Any):
        super().__init__(**options)
        # keras_nlp has no public name for it; behind a function it is no part of this layer.
        self._attention = lambda: encoder._self_attention_layer

    def call(self, inputs: Any, mask: Any) -> Any:
        attention = self._attention()
        query, key = attention.query_dense(inputs), attention.key_dense(inputs)
        scores = keras.ops.einsum("bqhd,bkhd->bhqk", query, key) / attention.key_dim ** 0.5
        return scores * keras.ops.cast(mask, scores.dtype)[:, None, None, :]
