"""Losses for `compile`: the fixed ones, and a taught one whose coefficients stay as they are."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.losses.registry import LABEL_SETS, fixed_loss
from tf_l2t.losses.taught import checked_counts, taught_form
from tf_l2t.objectives import accuracy, running_accuracy


def integer_labels(y: tf.Tensor, upper: Any) -> tf.Tensor:
    """Labels as Keras hands them over, [batch] or [batch, 1] of any number type, as int32 [batch].

    Labels out of range would silently teach nothing, and a data set cannot be looked at beforehand: they stop the step
    with `tf.errors.InvalidArgumentError`.

    Args:
      y: the labels.
      upper: labels are in 0 … upper - 1.

    Raises:
      ValueError: for labels of another shape.
    """
    if y.shape.rank not in (1, None) and y.shape[1:].num_elements() != 1:
        raise ValueError(f"labels must be integers [batch]; received shape {tuple(y.shape)}. One-hot labels: pass "
                         "np.argmax(y, axis=-1).")
    labels = tf.cast(tf.reshape(y, [-1]), tf.int32)
    # The op itself: tf.debugging.Assert puts it under a tf.cond, which costs every step more than the check.
    check = tf.raw_ops.Assert(condition=tf.reduce_all((labels >= 0) & (labels < upper)),
                              data=["labels must be in 0 …", upper - 1, "; received", labels])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(labels)


@keras.saving.register_keras_serializable(package="tf_l2t")
class FixedLoss(keras.losses.Loss):
    """A loss of `FIXED_LOSSES` for `compile`.

        model.compile("adam", loss=tf_l2t.losses.FixedLoss("focal", gamma=1.0))

    The model returns logits [batch, classes]; labels are integers, [batch] or [batch, 1].

    Args:
      loss: a name in `FIXED_LOSSES`.
      reduction: of Keras; "sum_over_batch_size" is the mean over examples.
      **options: of the loss, such as `gamma`.

    Raises:
      ValueError: as `fixed_loss`; when called, for labels that are no integers [batch] or [batch, 1].
      tf.errors.InvalidArgumentError: when called, for labels out of range.
    """

    def __init__(self, loss: str, reduction: str = "sum_over_batch_size", name: str | None = None, dtype: Any = None,
                 **options: Any):
        super().__init__(name=name or loss, reduction=reduction, dtype=dtype)
        self._loss = loss
        self._options = options
        self._function = fixed_loss(loss, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        upper = LABEL_SETS.get(self._loss, 1) * tf.shape(y_pred)[-1]
        return self._function(integer_labels(y_true, upper), y_pred)

    def get_config(self) -> dict[str, Any]:
        options = {key: np.asarray(value).tolist() for key, value in self._options.items()}
        return {**super().get_config(), "loss": self._loss, **options}


@keras.saving.register_keras_serializable(package="tf_l2t")
class TaughtLoss(keras.losses.Loss):
    """A taught loss for `compile`: at one Φ, or at one that a teacher changes along the way.

        model.compile("adam", loss=tf_l2t.losses.TaughtLoss("mixture", student.coefficients))

        model.compile("adam", loss=teacher.as_keras_loss(), metrics=["accuracy"])
        model.fit(x, y, callbacks=[tf_l2t.Teaching(teacher, dev_data=(x_dev, y_dev), num_steps=1100)])

    The model returns logits [batch, classes]; labels are integers, [batch] or [batch, 1]. A saved model keeps Φ as it
    is then.

    Args:
      form: a name in `TAUGHT_FORMS`.
      coefficients: Φ, [C, C] or its diagonal [C].
      class_counts: of the teacher that they are from, if it has some (`tf_l2t.teachers.Teacher`).
      changes: whether Φ is to be changed, by `tf_l2t.Teaching`; it warns where nothing does.
      train_accuracy: of a Φ that changes, the running accuracy on train batches, which is a part of the status.
      reduction: of Keras; "sum_over_batch_size" is the mean over examples.

    Raises:
      ValueError: for an unknown form, coefficients that are not finite or of another shape, or counts below 1 or of
        another length; when called, for labels that are no integers [batch] or [batch, 1].
      tf.errors.InvalidArgumentError: when called, for labels out of range.
    """

    def __init__(self, form: str, coefficients: Any, class_counts: Any = None, changes: bool = False,
                 train_accuracy: float = 0.0, reduction: str = "sum_over_batch_size", name: str | None = None,
                 dtype: Any = None):
        super().__init__(name=name or f"taught_{form}", reduction=reduction, dtype=dtype)
        self._form = taught_form(form)
        coefficients = np.asarray(coefficients, np.float64)
        if coefficients.ndim not in (1, 2) or len({*coefficients.shape}) != 1 or not np.isfinite(coefficients).all():
            raise ValueError("coefficients must be finite numbers, [classes, classes] or [classes]; received shape "
                             f"{coefficients.shape}.")
        self._counts = checked_counts(class_counts, len(coefficients))
        self._changes = changes
        self._classes = len(coefficients)
        self._coefficients: Any = tf.Variable(coefficients, False, dtype=tf.float32) if changes else coefficients
        self._train_accuracy: Any = tf.Variable(train_accuracy, False, dtype=tf.float32) if changes else None
        self._watches: Any = tf.Variable(False, False) if changes else None
        self._taught = False

    @property
    def form(self) -> str:
        return self._form.name

    @property
    def changes(self) -> bool:
        """Whether Φ is to be changed along the way."""
        return self._changes

    @property
    def coefficients(self) -> np.ndarray:
        """Φ as it is now."""
        return np.array(self._coefficients)

    @property
    def train_accuracy(self) -> tf.Tensor:
        """The running accuracy on train batches, of a Φ that changes."""
        return tf.convert_to_tensor(self._train_accuracy)

    def watch(self, training: bool) -> None:
        """Whether the batches that come are of train."""
        self._taught = True
        self._watches.assign(training)

    def change(self, coefficients: tf.Tensor) -> None:
        """Sets a Φ that changes."""
        self._coefficients.assign(tf.cast(coefficients, tf.float32))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = integer_labels(y_true, self._classes)
        if self._changes:
            if not self._taught:
                warnings.warn("nothing changes the coefficients of this loss: give `fit` the callback tf_l2t.Teaching.",
                              stacklevel=2)
            new = running_accuracy(self._train_accuracy, accuracy(labels, y_pred))
            self._train_accuracy.assign(tf.where(self._watches, new, self._train_accuracy))
        return self._form.losses(labels, y_pred, tf.cast(self._coefficients, y_pred.dtype), self._counts)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "form": self._form.name, "coefficients": self.coefficients.tolist(),
                "class_counts": None if self._counts is None else list(self._counts), "changes": self._changes,
                "train_accuracy": float(self._train_accuracy.numpy()) if self._changes else 0.0}
