"""Losses that compare how a student's features of a batch relate to each other with how a teacher's do.

All take features [batch, …] of the teacher and of the student, in this order, which are flattened, and return a scalar.
But for `correlation_congruence` they have no weights and the two widths may differ. Nothing flows back to the teacher
but what its own tensor carries: stop it there.
"""

from __future__ import annotations

import math

import tensorflow as tf

from tf_l2t.distillation.maps import EPSILON, check_variant, flat, normalised

PKT_EPSILON = 1e-7


def relational(teacher: tf.Tensor, student: tf.Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0
               ) -> tf.Tensor:
    """RKD: Huber losses of pairwise distances and of the angles of triplets.

    distance_weight · mean over pairs (i, j) of h(d_ij / mean d), d the Euclidean distance and its mean that of the
    positive ones; angle_weight · mean over triplets (i, j, k) of h(cos ∠ijk); h is ½ x² for |x| < 1, else |x| − ½, of
    student minus teacher.

    Raises:
      ValueError: for a negative weight.

    Source: Park et al., "Relational knowledge distillation", CVPR 2019, section 3.2.
    """
    if distance_weight < 0 or angle_weight < 0:
        raise ValueError("distance_weight and angle_weight must be at least 0; received "
                         f"{distance_weight!r}, {angle_weight!r}.")
    teacher, student = flat(teacher), flat(student)
    distances = _huber(_relative_distances(student) - _relative_distances(teacher))
    angles = _huber(_angles(student) - _angles(teacher))
    return distance_weight * distances + angle_weight * angles


def probabilistic(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """PKT: mean over all b² entries of P_t log((P_t + ε) / (P_s + ε)).

    P are the cosine similarities of the batch, (cos + 1) / 2, with every row divided by its sum; ε = 1e-7.

    Source: Passalis and Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV 2018,
    section 3; the mean over entries as in its authors' code.
    """
    p_t, p_s = _affinities(flat(teacher)), _affinities(flat(student))
    return tf.reduce_mean(p_t * tf.math.log((p_t + PKT_EPSILON) / (p_s + PKT_EPSILON)))


def correlation_congruence(teacher: tf.Tensor, student: tf.Tensor, variant: str = "repdistiller", gamma: float = 0.4,
                           order: int = 2) -> tf.Tensor:
    """CC, of embeddings of one width.

    "repdistiller": mean over neighbours i, i + 1 of the batch of Σ_d δ_i δ_{i+1}, with δ = |e_s − e_t|. "paper":
    ‖C_t − C_s‖²_F / b², with C the Gaussian kernel exp(−γ ‖e_i − e_j‖²) of embeddings divided by their norms, as its
    Taylor series in e_i · e_j up to the power `order`.

    Args:
      variant: of `tf_l2t.distillation.maps.VARIANTS`.
      gamma, order: γ and P of the paper's variant.

    Raises:
      ValueError: for embeddings of two widths, an unknown variant, γ ≤ 0, or an order that is no whole number ≥ 1.

    Source: Peng et al., "Correlation congruence for knowledge distillation", ICCV 2019, sections 3.3 and 3.4; the first
    variant is that of the code which its authors gave to RepDistiller's.
    """
    check_congruence(variant, gamma, order)
    teacher, student = flat(teacher), flat(student)
    if not teacher.shape.is_compatible_with(student.shape):
        raise ValueError("correlation congruence compares embeddings of one width; received shapes "
                         f"{tuple(teacher.shape)}, {tuple(student.shape)}.")
    if variant == "repdistiller":
        delta = tf.abs(student - teacher)
        products = tf.reduce_sum(delta[:-1] * delta[1:], axis=-1)
        return tf.reduce_sum(products) / tf.cast(tf.maximum(tf.size(products), 1), products.dtype)  # 0 for a batch of 1
    difference = _gaussian(teacher, gamma, order) - _gaussian(student, gamma, order)
    return tf.reduce_mean(tf.square(difference))


def check_congruence(variant: str, gamma: float, order: int) -> None:
    """Raises ValueError for options that `correlation_congruence` does not take."""
    check_variant(variant)
    if not gamma > 0 or isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ValueError(f"gamma must be above 0 and order a whole number >= 1; received {gamma!r}, {order!r}.")


def _relative_distances(rows: tf.Tensor) -> tf.Tensor:
    """Euclidean distances [batch, batch], divided by the mean of the positive ones."""
    products = tf.matmul(rows, rows, transpose_b=True)
    squares = tf.linalg.diag_part(products)
    distances = tf.sqrt(tf.maximum(squares[:, None] + squares[None] - 2 * products, EPSILON))
    apart = 1 - tf.eye(tf.shape(rows)[0], dtype=rows.dtype)
    distances *= apart
    mean = tf.reduce_sum(distances) / tf.maximum(tf.reduce_sum(apart), 1)
    return tf.math.divide_no_nan(distances, mean)


def _angles(rows: tf.Tensor) -> tf.Tensor:
    """cos of the angle at i between j and k, [i, j, k]."""
    directions = normalised(rows[None] - rows[:, None])
    return tf.matmul(directions, directions, transpose_b=True)


def _huber(x: tf.Tensor) -> tf.Tensor:
    size = tf.abs(x)
    return tf.reduce_mean(tf.where(size < 1, tf.square(x) / 2, size - 0.5))


def _affinities(rows: tf.Tensor) -> tf.Tensor:
    # The norm has ε added, in contrast to the other losses.
    squares = tf.reduce_sum(tf.square(rows), axis=-1, keepdims=True)
    norms = tf.sqrt(tf.maximum(squares, EPSILON ** 2))
    rows = rows / (norms + PKT_EPSILON)
    similarities = (tf.matmul(rows, rows, transpose_b=True) + 1) / 2
    return similarities / tf.reduce_sum(similarities, axis=-1, keepdims=True)


def _gaussian(rows: tf.Tensor, gamma: float, order: int) -> tf.Tensor:
    rows = normalised(rows)
    products = tf.matmul(rows, rows, transpose_b=True)
    terms = [tf.ones_like(products)]
    for power in range(1, order + 1):  # by products: tf.pow(0, 0) has no derivative
        terms.append(terms[-1] * products * (2 * gamma / power))
    return math.exp(-2 * gamma) * tf.add_n(terms)
