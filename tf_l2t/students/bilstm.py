"""The bi-LSTM text student of the ProKT paper (section 4.1.2)."""

from __future__ import annotations

from typing import Any

import keras

from tf_l2t.students.text_inputs import BERT_TOKENS, MaxOverTime, Sentences, SpecialTokens


def bilstm(vocabulary_size: int, num_classes: int = 2, pair: bool = False, embedding: int = 300, units: int = 300,
           dropout: float = 0.4, special: Any = BERT_TOKENS) -> keras.Model:
    """Token ids [batch, length] -> logits [batch, classes], by one bi-directional LSTM and the maximum over time.

    Of a pair (u, v) the features are a linear map, to 2 · units, of [u; v; |u − v|; u · v]; both sentences pass the
    same LSTM. Of one sentence they are u. Special tokens are left out, and padding does not count.

    Args:
      vocabulary_size: of the word pieces.
      num_classes: C.
      pair: whether the task is one of two sentences.
      embedding: width of the embeddings.
      units: of the LSTM in each direction.
      dropout: of the embeddings.
      special: the vocabulary's `SpecialTokens`.

    Sizes: "a single-layer bi-LSTM with 300 embedding size and 300 hidden size"; dropout, the maximum over time and pair
    features as in the authors' public code, where the LSTM and the maximum pass over special tokens and padding too.
    """
    special = SpecialTokens(*special)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embed = keras.layers.Embedding(vocabulary_size, embedding, name="embedding")
    drop = keras.layers.Dropout(dropout, name="dropout")
    lstm = keras.layers.Bidirectional(keras.layers.LSTM(units, return_sequences=True, use_cudnn=False), name="bilstm")
    pool = MaxOverTime(special.pad, name="max_over_time")
    encoded = [pool(lstm(drop(embed(sentence)), mask=keras.ops.not_equal(sentence, special.pad)), sentence)
               for sentence in Sentences(special, name="sentences")(tokens)[:2 if pair else 1]]
    if pair:
        u, v = encoded
        features = keras.layers.Concatenate(name="pair")([u, v, keras.ops.abs(u - v), u * v])
        pooled = keras.layers.Dense(2 * units, name="pooled")(features)
    else:
        pooled = keras.layers.Identity(name="pooled")(encoded[0])
    return keras.Model(tokens, keras.layers.Dense(num_classes, name="logits")(pooled), name="bilstm")
