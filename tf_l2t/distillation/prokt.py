"""Proximal knowledge teaching (ProKT): what a teacher minimises that is trained along with its student.

Source: "Learning from deep model via exploring local targets", under review at ICLR 2021, sections 3.3 and 3.4; the
multiplier of the constrained form as in the authors' public code for text.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_l2t.distillation.targets import kullback_leibler, soft_cross_entropy


def proximal_teacher_loss(labels: tf.Tensor, teacher: tf.Tensor, student: tf.Tensor, lam: Any) -> tf.Tensor:
    """(1 − λ) H(y, p_t) + λ H(q_s, p_t), equation (7): the labels, as near to the student as λ says.

    Args:
      labels: integers [batch].
      teacher: logits of p_t, [batch, classes].
      student: logits of q_s, as many; nothing flows back to them.
      lam: λ in [0, 1].
    """
    return (1 - lam) * cross_entropy(labels, teacher) + lam * soft_cross_entropy(tf.stop_gradient(student), teacher)


def constrained_teacher_loss(labels: tf.Tensor, teacher: tf.Tensor, student: tf.Tensor, multiplier: Any,
                             epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The Lagrangian of equation (6), H(y, p_t) + β (KL(q_s ‖ p_t) − ε), and what the constraint is over, KL − ε.

    Args:
      labels, teacher, student: as in `proximal_teacher_loss`.
      multiplier: β ≥ 0.
      epsilon: ε.
    """
    excess = kullback_leibler(tf.stop_gradient(student), teacher, temperature=1.0) - epsilon
    return cross_entropy(labels, teacher) + multiplier * excess, excess


def next_multiplier(multiplier: Any, excess: Any, rate: float) -> tf.Tensor:
    """max(0, β + rate · (KL − ε)): dual ascent."""
    return tf.maximum(multiplier + rate * excess, 0.0)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """H(y, p), the mean over the batch."""
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def zero_head(network: keras.Model) -> None:
    """Sets the weights of the network's last layer to 0: its output is the uniform distribution.

    Both networks begin there (section 3.3). Of a network within another, such as one behind a `Rescaling`, it is that
    one's last layer; an activation that changes nothing but the dtype may stand behind it.

    Raises:
      ValueError: if the last layer is no `Dense`.
    """
    head = _last_layer(network)
    if not isinstance(head, keras.layers.Dense):
        raise ValueError("a network that begins with the uniform distribution needs a dense layer as its last; "
                         f"{network.name!r} ends with {type(head).__name__}.")
    for weight in head.weights:
        weight.assign(tf.zeros(weight.shape, weight.dtype))


def _last_layer(network: keras.Model) -> Any:
    """The last of the layers, of the last network within if that is one; None if there is none."""
    last = next((layer for layer in reversed(network.layers) if not _passes_through(layer)), None)
    return _last_layer(last) if isinstance(last, keras.Model) else last


def _passes_through(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Identity) or (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear)
