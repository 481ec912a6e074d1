"""Contrastive representation distillation (CRD): a student's embedding of an example is told from those of others.

Source: Tian et al., "Contrastive representation distillation", ICLR 2020, sections 3.1 and 3.4; constants as in
RepDistiller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.distillation.connectors import Shape, embedding
from tf_l2t.distillation.maps import EPSILON, flat, normalised
from tf_l2t.hypergradient.replicas import place_in_batch, replica_mean, whole_batch

NCE_EPSILON = 1e-7


@keras.saving.register_keras_serializable(package="tf_l2t")
class ContrastiveRepresentation(keras.layers.Layer):
    """CRD: noise-contrastive losses of both networks' embeddings, summed.

    Linear maps of both networks' features to one width, divided by their norms, are kept for all N train examples in
    two memory banks. For a network's embedding v of example i, the other bank's row of i is the positive one, and K
    rows of examples of other classes are the negatives; with h(u) = exp(u · v / τ) / Z and m = K / N,

        loss = −mean_i [log h(u_i) / (h(u_i) + m) + Σ_negatives log m / (h(u) + m)].

    Z is N times the mean of exp(u · v / τ) of the first batch and stays. Behind the loss, the batch's rows become
    momentum · row + (1 − momentum) · v, divided by their norms. Negatives are drawn with replacement (public code:
    without). Scores against all N rows are one matrix product, [batch, N], and the drawn ones are taken from it:
    batch · N floats, in place of batch · K · width for a gather of rows.

    Under a strategy of several replicas each has the whole memory and renews the rows of the whole batch, and negatives
    are drawn for that: the training is that of one device.

    Args:
      labels: classes of all train examples, [N].
      width: of the embeddings.
      num_negatives: K.
      nce_temperature: τ.
      momentum: of the memory.
      seed: of the memory's first rows and of the draws; None for one that Keras draws, as for other layers.

    Raises:
      ValueError: for labels that are not [N] integers, one class only, or numbers out of range.
    """

    def __init__(self, labels: Sequence[int] | np.ndarray, width: int = 128, num_negatives: int = 16384,
                 nce_temperature: float = 0.07, momentum: float = 0.5, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (labels < 0).any() \
                or len(np.unique(labels)) < 2:
            raise ValueError("labels must be integers >= 0 of the train examples, [N], of two classes at least; "
                             f"received {labels.dtype} of shape {labels.shape}.")
        if width < 1 or num_negatives < 1 or not nce_temperature > 0 or not 0 <= momentum < 1:
            raise ValueError("width and num_negatives must be at least 1, nce_temperature above 0, momentum in [0, 1); "
                             f"received {width!r}, {num_negatives!r}, {nce_temperature!r}, {momentum!r}.")
        self.num_examples, self.width, self.num_negatives = len(labels), width, num_negatives
        self.nce_temperature, self.momentum = nce_temperature, momentum
        self._draws = keras.random.SeedGenerator(seed)
        self.seed = self._draws.get_config()["seed"]
        # Examples in the order of their classes: those of other classes are all but one stretch.
        self._order = np.argsort(labels, kind="stable").astype(np.int32)
        self._counts = np.bincount(labels).astype(np.int32)
        self._starts = (np.cumsum(self._counts) - self._counts).astype(np.int32)

    def get_config(self) -> dict[str, Any]:
        labels = np.empty_like(self._order)
        labels[self._order] = np.repeat(np.arange(len(self._counts)), self._counts)
        return {**super().get_config(), "labels": labels.tolist(), "width": self.width, "seed": self.seed,
                "num_negatives": self.num_negatives, "nce_temperature": self.nce_temperature, "momentum": self.momentum}

    def build(self, teacher_shape: Shape, student_shape: Shape, *_: Any) -> None:
        self._embeddings = [embedding(shape, self.width, name, self.dtype_policy) for shape, name in
                            ((teacher_shape, "teacher"), (student_shape, "student"))]
        bound = (self.width / 3) ** -0.5
        rows = keras.initializers.RandomUniform(-bound, bound, seed=self._draws)
        kept: dict[str, Any] = {"trainable": False, "aggregation": "only_first_replica"}
        self._banks = [self.add_weight(shape=(self.num_examples, self.width), initializer=rows, name=f"{name}_bank",
                                       **kept) for name in ("teacher", "student")]
        self._constants = [self.add_weight(shape=(), initializer="zeros", name=f"{name}_constant", **kept)
                           for name in ("teacher", "student")]

    def call(self, teacher: tf.Tensor, student: tf.Tensor, index: tf.Tensor, labels: tf.Tensor,
             training: bool | None = None) -> tf.Tensor:
        """The loss of a batch; in training its rows of the memory are renewed.

        Args:
          index: of the examples among all N, int [batch].
          labels: their classes, int [batch].
        """
        index = tf.cast(index, tf.int32)
        rows = tf.concat([index[:, None], self._negatives(tf.cast(labels, tf.int32))], axis=1)
        own = [normalised(layer(flat(x))) for layer, x in zip(self._embeddings, (teacher, student), strict=True)]
        loss = tf.add_n([self._contrast(v, bank, constant, rows) for v, bank, constant in
                         zip(own, reversed(self._banks), self._constants, strict=True)])
        if training:
            with tf.control_dependencies([loss]):
                for v, bank in zip(own, self._banks, strict=True):
                    self._renew(bank, index, tf.stop_gradient(v))
        return loss

    def _negatives(self, labels: tf.Tensor) -> tf.Tensor:
        """Examples of other classes, [batch, K]."""
        count, start = (tf.gather(tf.constant(x), labels)[:, None] for x in (self._counts, self._starts))
        first, total = place_in_batch(tf.shape(labels)[0])
        part = keras.random.uniform((total, self.num_negatives), dtype="float32", seed=self._draws)
        part = part[first:first + tf.shape(labels)[0]]
        others = self.num_examples - count
        # A float32 in [0, 1) may round up to the number itself.
        place = tf.minimum(tf.cast(part * tf.cast(others, part.dtype), tf.int32), others - 1)
        return tf.gather(tf.constant(self._order), tf.where(place >= start, place + count, place))

    def _contrast(self, v: tf.Tensor, bank: Any, constant: Any, rows: tf.Tensor) -> tf.Tensor:
        products = tf.matmul(v, tf.convert_to_tensor(bank), transpose_b=True)
        scores = tf.exp(tf.gather(products, rows, batch_dims=1) / self.nce_temperature)
        first = replica_mean(tf.stop_gradient(tf.reduce_mean(scores))) * self.num_examples
        constant.assign(tf.where(constant.value > 0, constant.value, first))
        return noise_contrastive(scores / constant.value, self.num_examples)

    def _renew(self, bank: Any, index: tf.Tensor, v: tf.Tensor) -> None:
        index, v = whole_batch(index), whole_batch(v)
        renewed = self.momentum * tf.gather(tf.convert_to_tensor(bank), index) + (1 - self.momentum) * v
        norms = tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(renewed), axis=-1, keepdims=True), EPSILON ** 2))
        # By its handle: every replica renews the copy that it has.
        tf.raw_ops.ResourceScatterNdUpdate(ref=bank.value.handle, indices=index[:, None], updates=renewed / norms)


def noise_contrastive(scores: tf.Tensor, num_examples: int) -> tf.Tensor:
    """−mean over rows of [log h_0 / (h_0 + m) + Σ_{k ≥ 1} log m / (h_k + m)], m = K / N.

    Args:
      scores: h, [batch, 1 + K], the positive one first.
      num_examples: N, whose uniform distribution is the noise's.
    """
    m = tf.constant((scores.shape[1] - 1) / num_examples, scores.dtype)
    positive = tf.math.log(scores[:, 0] / (scores[:, 0] + m + NCE_EPSILON))
    negative = tf.reduce_sum(tf.math.log(m / (scores[:, 1:] + m + NCE_EPSILON)), axis=-1)
    return -tf.reduce_mean(positive + negative)
