"""Losses between a teacher's and a student's transformer encoders: TinyBERT's and patient distillation's."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_l2t.distillation.connectors import embedding


def attention_scores(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """TinyBERT: the mean of (A_s − A_t)² over all entries.

    Args:
      teacher, student: scores before their softmax, 0 where a key is padding, [batch, heads, length, length].

    Raises:
      ValueError: for another number of heads.

    Source: Jiao et al., "TinyBERT: distilling BERT for natural language understanding", 2020, equation (7).
    """
    if len(teacher.shape) != 4 or not teacher.shape.is_compatible_with(student.shape):
        raise ValueError("attention scores are compared head by head, [batch, heads, length, length]; received shapes "
                         f"{tuple(teacher.shape)}, {tuple(student.shape)}. Give both networks as many heads.")
    return tf.reduce_mean(tf.math.squared_difference(student, teacher))


def patient(teacher: tf.Tensor, student: tf.Tensor, variant: str = "code") -> tf.Tensor:
    """Patient distillation: ‖h_s / ‖h_s‖ − h_t / ‖h_t‖‖² of the states over [CLS], the mean over the batch.

    Args:
      teacher, student: states [batch, length, width].
      variant: "code" divides by the width, as the authors' does, and a method with it has the mean over layers; "paper"
        does not divide, and has their sum.

    Raises:
      ValueError: for another variant, or states of two widths.

    Source: Sun et al., "Patient knowledge distillation for BERT model compression", 2019, equation (7).
    """
    if variant not in ("code", "paper"):
        raise ValueError(f'variant must be "code" or "paper"; received {variant!r}.')
    if len(teacher.shape) != 3 or teacher.shape[-1] != student.shape[-1]:
        raise ValueError("patient distillation compares states [batch, length, width] of one width; received shapes "
                         f"{tuple(teacher.shape)}, {tuple(student.shape)}.")
    first = [tf.math.l2_normalize(states[:, 0], axis=-1) for states in (teacher, student)]
    entries = tf.math.squared_difference(*first)
    return tf.reduce_mean(entries) if variant == "code" else tf.reduce_mean(tf.reduce_sum(entries, axis=-1))


@keras.saving.register_keras_serializable(package="tf_l2t")
class HiddenStates(keras.layers.Layer):
    """TinyBERT: the mean of (h_s W − h_t)² over all entries, padding among them.

    Called with the states of teacher and student, [batch, length, width] each, of any two widths; returns a scalar. One
    W, [student width, teacher width], and its bias serve embeddings and all layers, as in the authors' code; the paper
    gives the embeddings their own.

    Source: Jiao et al., "TinyBERT", equations (8) and (9).
    """

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        self._map = embedding((None, student_shape[-1]), teacher_shape[-1], "map", self.dtype_policy)

    def call(self, teacher: tf.Tensor, student: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.reduce_mean(tf.math.squared_difference(self._map(student), teacher))
