"""The paper's teachers, attention over N learned coefficient matrices or diagonals, and one of diagonals with a common
part."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_l2t.teachers.base import Teacher


class AttentionTeacher(Teacher):
    """Φ_t = W softmax(V s_t), W [C, C, N], V [N, |s|] (L2T-DLF, section 4.1 and figure 2).

    Every key starts with the same matrix, Φ_0 (`first`), start · I or close to it, so that the first student is trained
    by a fixed, harmless loss; V is drawn from a standard normal, so that the keys attend to different statuses and
    grow apart. Note that W's gradient is nonzero at once, V's only when the keys' matrices differ.

    Args:
      num_classes: C.
      num_features: |s|; C + 3 for the status of `tf_l2t.features`.
      num_keys: N (10 in the paper).
      loss: the name of a taught loss (`tf_l2t.losses.TAUGHT_FORMS`).
      seed: of V.
      **options: `ignored`, `class_counts`, `name`, see `Teacher`.

    Raises:
      ValueError: for an unknown loss, or a number below 1.
    """

    def __init__(self, num_classes: int, num_features: int, num_keys: int = 10, loss: str = "stable", seed: int = 0,
                 **options: Any):
        super().__init__(num_classes, num_features, loss, **options)
        if num_keys < 1:
            raise ValueError(f"num_keys must be at least 1; received {num_keys!r}.")
        self.num_keys = num_keys
        self.seed = seed
        self.values = tf.Variable(tf.repeat(self.first[..., tf.newaxis], num_keys, axis=-1), name="values")
        self.keys = tf.Variable(tf.random.stateless_normal([num_keys, num_features], seed=[seed, 0]), name="keys")

    @property
    def theta(self) -> tuple[tf.Variable, ...]:
        return self.values, self.keys

    def apply(self, theta: tuple[tf.Tensor, ...], features: tf.Tensor) -> tf.Tensor:
        values, keys = theta
        # Plain products, not einsums: small as they are, they stand in every step of a student and of its adjoint.
        rows = self.seen(features, keys.dtype)
        attention = tf.nn.softmax(tf.linalg.matmul(rows, keys, transpose_b=True))
        flat = tf.linalg.matmul(attention, tf.reshape(values, [-1, self.num_keys]), transpose_b=True)
        return tf.reshape(flat, [*tf.unstack(tf.shape(features)[:-1]), *self.coefficients_shape])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_keys": self.num_keys, "seed": self.seed}


class DiagonalTeacher(AttentionTeacher):
    """Φ_t = diag(W softmax(V s_t)), W [C, N], V [N, |s|]: as many numbers as there are classes (L2T-DLF, section 4.2).

    For vocabularies, where C² coefficients are out of reach. Emits the diagonal, [C]; the taught losses take it as
    it is, and never form a matrix.

    Args, Raises: as `AttentionTeacher`; the paper's translation teacher has N = 5 keys.
    """

    @property
    def coefficients_shape(self) -> tuple[int, ...]:
        return (self.num_classes,)


class SharedDiagonalTeacher(DiagonalTeacher):
    """Φ_t = diag((W + 1 wᵀ) softmax(V s_t)), w [N]: what all tokens have in common is a weight of its own.

    The same functions as `DiagonalTeacher`'s, learned in another order. Adam moves every weight by as much, and most
    tokens of a vocabulary are too rare for their gradient to be more than noise; the sum of all of them, w's gradient,
    is not. W begins with zeros, and an optimizer with a large epsilon leaves there what hardly matters.

    Args, Raises: as `DiagonalTeacher`.
    """

    def __init__(self, num_classes: int, num_features: int, num_keys: int = 5, loss: str = "stable", seed: int = 0,
                 **options: Any):
        super().__init__(num_classes, num_features, num_keys, loss, seed, **options)
        self.shared = tf.Variable(tf.fill([num_keys], self.form.start), name="shared")
        self.values.assign(tf.zeros_like(self.values))

    @property
    def theta(self) -> tuple[tf.Variable, ...]:
        return self.values, self.keys, self.shared

    def apply(self, theta: tuple[tf.Tensor, ...], features: tf.Tensor) -> tf.Tensor:
        values, keys, shared = theta
        return super().apply((values + shared, keys), features)
