"""Losses that compare a student's feature maps with a teacher's, without weights of their own.

All take maps [batch, height, width, channels] of the teacher and of the student, in this order, and return a scalar.
Maps of another size are averaged down to the smaller of the two, as PyTorch's adaptive pooling does. They may differ in
channels. Nothing flows back to the teacher but what its own tensor carries: stop it there.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

EPSILON = 1e-12  # the smallest norm by which is divided, as in PyTorch's normalize
VARIANTS = ("repdistiller", "paper")


def attention_transfer(teacher: tf.Tensor, student: tf.Tensor, p: float = 2.0, variant: str = "repdistiller"
                       ) -> tf.Tensor:
    """AT: the distance of attention maps, Q = mean_c |f|^p, flattened and divided by its norm.

    "repdistiller": the mean over batch and places of (Q_s − Q_t)². "paper": half the batch's mean of ‖Q_s − Q_t‖₂, its
    equation (2).

    Args:
      p: the power of activations.
      variant: of `VARIANTS`.

    Raises:
      ValueError: for an unknown variant, p below 1, or tensors that are no maps.

    Source: Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, sections 3.1 and 3.2.
    """
    check_variant(variant)
    check_power(p)
    teacher, student = same_size(teacher, student)
    difference = attention_map(student, p) - attention_map(teacher, p)
    if variant == "repdistiller":
        return tf.reduce_mean(tf.square(difference))
    return tf.reduce_mean(norm(difference)) / 2


def neuron_selectivity(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """NST: the squared maximum mean discrepancy of the channels' maps, with the kernel k(a, b) = (a · b)².

    mean k(t, t) + mean k(s, s) − 2 mean k(s, t) over the pairs of channels of an example, then over the batch; every
    channel's map is divided by its norm.

    Raises:
      ValueError: for tensors that are no maps.

    Source: Huang and Wang, "Like what you like: knowledge distill via neuron selectivity transfer", 2017, section 4.2.
    """
    teacher, student = (_channels(x) for x in same_size(teacher, student))
    return _kernel(teacher, teacher) + _kernel(student, student) - 2 * _kernel(student, teacher)


def similarity_preserving(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """SP: ‖G_t − G_s‖²_F / b², where G is F Fᵀ of the flattened maps with every row divided by its norm.

    The examples' similarities to each other, [batch, batch], are compared: the maps may differ in size and channels,
    and are not pooled. Takes any tensors [batch, …].

    Source: Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019, equations 2 to 4.
    """
    difference = _similarities(teacher) - _similarities(student)
    return tf.reduce_sum(tf.square(difference)) / tf.cast(tf.size(difference), difference.dtype)


def attention_map(features: tf.Tensor, p: float) -> tf.Tensor:
    """mean_c |f|^p of maps [batch, h, w, c], flattened and divided by its norm: [batch, h w]."""
    # Integer powers stay differentiable at 0, where pow's derivative in p is not a number.
    powers = tf.square(features) if p == 2 else tf.abs(features) if p == 1 else tf.pow(tf.abs(features), p)
    return normalised(flat(tf.reduce_mean(powers, axis=-1)))


def same_size(teacher: tf.Tensor, student: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Both maps, the larger one averaged down to the size of the smaller, height and width for themselves.

    Raises:
      ValueError: for tensors that are no maps of known size.
    """
    sizes = [map_size(x) for x in (teacher, student)]
    height, width = (min(size) for size in zip(*sizes, strict=True))
    return pooled_to(teacher, height, width), pooled_to(student, height, width)


def map_size(features: tf.Tensor) -> tuple[int, int]:
    """Height and width.

    Raises:
      ValueError: for a tensor that is no map of known size.
    """
    shape = tuple(features.shape)
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(f"feature maps are [batch, height, width, channels] of known size; received shape {shape}.")
    return shape[1], shape[2]


def pooled_to(features: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Means over bins: the i-th of n bins of N places begins at ⌊i N / n⌋ and ends before ⌈(i + 1) N / n⌉."""
    rows, columns = map_size(features)
    if (rows, columns) == (height, width):
        return features
    down, across = (tf.constant(_bins(*sizes), features.dtype) for sizes in ((rows, height), (columns, width)))
    return tf.einsum("ih,bhwc,jw->bijc", down, features, across)


def _bins(size: int, count: int) -> np.ndarray:
    """[count, size]: the weights of the places in every bin."""
    index = np.arange(count)[:, None]
    places = np.arange(size)[None]
    inside = (places >= index * size // count) & (places < -(-(index + 1) * size // count))
    return inside / inside.sum(axis=1, keepdims=True)


def normalised(rows: tf.Tensor) -> tf.Tensor:
    """Every row, along the last axis, divided by its norm; zeros stay zeros."""
    squares = tf.reduce_sum(tf.square(rows), axis=-1, keepdims=True)
    return rows * tf.math.rsqrt(tf.maximum(squares, EPSILON ** 2))


def norm(rows: tf.Tensor) -> tf.Tensor:
    """The norm of every row, whose derivative at 0 is 0."""
    squares = tf.reduce_sum(tf.square(rows), axis=-1)
    positive = squares > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squares, tf.ones_like(squares))), tf.zeros_like(squares))


def flat(features: tf.Tensor) -> tf.Tensor:
    """[batch, all the rest]."""
    known = features.shape[1:].num_elements()
    return tf.reshape(features, [tf.shape(features)[0], -1 if known is None else known])


def _channels(features: tf.Tensor) -> tf.Tensor:
    """[batch, channels, places], every channel's map divided by its norm."""
    height, width = map_size(features)
    places = tf.reshape(features, [tf.shape(features)[0], height * width, features.shape[-1]])
    return normalised(tf.transpose(places, [0, 2, 1]))


def _kernel(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.square(tf.matmul(a, b, transpose_b=True)))


def _similarities(features: tf.Tensor) -> tf.Tensor:
    rows = flat(features)
    return normalised(tf.matmul(rows, rows, transpose_b=True))


def check_variant(variant: str) -> None:
    """Raises ValueError unless it is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}; received {variant!r}.")


def check_power(p: float) -> None:
    """Raises ValueError for a power of activations below 1."""
    if not p >= 1:
        raise ValueError(f"the power p of activations must be at least 1; received {p!r}.")
