"""Losses for `compile`: the fixed ones, and a taught one whose coefficients stay as they are."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.losses.registry import LABEL_SETS, fixed_loss
from tf_l2t.losses.taught import checked_counts, taught_form
from tf_l2t.objectives import accuracy, running_accuracy

NO_TEACHING = "nothing sets the coefficients of this loss: give fit the callback tf_l2t.Teaching"


def integer_labels(y: tf.Tensor, upper: Any) -> tf.Tensor:
    """Labels as Keras hands them over, [batch] or [batch, 1] of any number type, as int32 [batch].

    Labels out of range would silently teach nothing, and a data set cannot be looked at beforehand: they stop the step
    with `tf.errors.InvalidArgumentError`. XLA leaves that check out; there they become −1, of which `where_labelled`
    makes a loss of NaN.

    Args:
      y: the labels.
      upper: labels are in 0 … upper - 1.

    Raises:
      ValueError: for labels of another shape.
    """
    if y.shape.rank not in (1, None) and y.shape[1:].num_elements() != 1:
        raise ValueError(f"labels must be integers [batch]; received shape {tuple(y.shape)}. One-hot labels: pass "
                         "np.argmax(y, axis=-1).")
    given = tf.reshape(y, [-1])
    labels = tf.cast(given, tf.int32)
    # The op itself: tf.debugging.Assert puts it under a tf.cond, which costs every step more than the check.
    right = (labels >= 0) & (labels < upper) & (tf.cast(labels, given.dtype) == given)
    check = tf.raw_ops.Assert(condition=tf.reduce_all(right),
                              data=["labels must be integers in 0 …", upper - 1, "; received", given,
                                    ". Labels that begin with 1: pass y - 1. Only classes, as integers, have a loss."])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.where(right, labels, -1)


def where_labelled(labels: tf.Tensor, losses: tf.Tensor) -> tf.Tensor:
    """The losses of `integer_labels`, and NaN, its gradient too, for a label that is none."""
    return losses * tf.cast(tf.where(labels < 0, np.nan, 1.0), losses.dtype)


def masked_weights(logits: tf.Tensor, dtype: tf.DType) -> tf.Tensor | None:
    """What a mean over a batch multiplies its losses by where the logits have a Keras mask [batch]: 0, or as much more
    as examples are left out; None without one.

    As `keras.losses.Loss` does.
    """
    mask = getattr(logits, "_keras_mask", None)
    if mask is None or mask.shape.rank != 1:
        return None
    mask = tf.cast(mask, dtype)
    return mask * tf.math.divide_no_nan(tf.cast(tf.size(mask), dtype), tf.reduce_sum(mask))


def not_half(logits: tf.Tensor) -> tf.Tensor:
    """In float32 if they are of 16 bits, as Keras' own losses compute."""
    return tf.cast(logits, tf.float32) if logits.dtype.size == 2 else logits


def check_logits(y_pred: Any) -> None:
    """Raises ValueError if a model's outputs are those of a softmax or, while its step is traced, of a sigmoid."""
    if tf.executing_eagerly() and y_pred.shape[0] > 3:  # a few logits may look like probabilities by chance
        check_no_probabilities(y_pred)
    op = getattr(y_pred, "op", None)  # an eager tensor has none
    while op is not None and op.type in ("Cast", "Identity"):
        op = op.inputs[0].op
    if op is not None and op.type in ("Softmax", "Sigmoid"):
        end = op.type.lower()
        raise ValueError(f"the model ends in a {end}, and its loss takes logits: leave the {end} out.")


def check_no_probabilities(outputs: Any) -> None:
    """Raises ValueError if a model's outputs for some examples are those of a softmax, however it was written."""
    outputs = tf.cast(outputs, tf.float32)
    if tf.reduce_all(outputs >= 0) and np.allclose(tf.reduce_sum(outputs, axis=-1), 1, atol=1e-2):  # also of 8 bits
        raise ValueError("the model returns probabilities, and its loss takes logits: leave the softmax at its end "
                         "out.")


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
      tf.errors.InvalidArgumentError: when called, for labels out of range; under XLA the loss is NaN.
    """

    def __init__(self, loss: str, reduction: str = "sum_over_batch_size", name: str | None = None, dtype: Any = None,
                 **options: Any):
        super().__init__(name=name or loss, reduction=reduction, dtype=dtype)
        self._loss = loss
        self._options = options
        self._function = fixed_loss(loss, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        check_logits(y_pred)
        upper = LABEL_SETS.get(self._loss, 1) * tf.shape(y_pred)[-1]
        labels = integer_labels(y_true, upper)
        return where_labelled(labels, self._function(labels, y_pred))

    def get_config(self) -> dict[str, Any]:
        options = {key: np.asarray(value).tolist() for key, value in self._options.items()}
        return {**super().get_config(), "loss": self._loss, **options}


@keras.saving.register_keras_serializable(package="tf_l2t")
class TaughtLoss(keras.losses.Loss):
    """A taught loss at one Φ, for `compile`; `TeacherLoss` and `TaughtStudent` are for a Φ that a teacher changes.

        model.compile("adam", loss=tf_l2t.losses.TaughtLoss("mixture", student.coefficients))

    Args:
      form: a name in `TAUGHT_FORMS`.
      coefficients: Φ, [C, C] or its diagonal [C].
      class_counts: of the teacher that they are from, if it has some (`tf_l2t.teachers.Teacher`).
      reduction: of Keras; "sum_over_batch_size" is the mean over examples.

    Raises:
      ValueError: for an unknown form, coefficients that are not finite or of another shape, or counts below 1 or of
        another length; when called, for labels that are no integers [batch] or [batch, 1].
      tf.errors.InvalidArgumentError: when called, for labels out of range; under XLA the loss is NaN.
    """

    def __init__(self, form: str, coefficients: Any, class_counts: Any = None, reduction: str = "sum_over_batch_size",
                 name: str | None = None, dtype: Any = None):
        super().__init__(name=name or f"taught_{form}", reduction=reduction, dtype=dtype)
        self._form = taught_form(form)
        self._coefficients: Any = np.asarray(coefficients, np.float64)
        if self._coefficients.ndim not in (1, 2) or len({*self._coefficients.shape}) != 1 \
                or not np.isfinite(self._coefficients).all():
            raise ValueError("coefficients must be finite numbers, [classes, classes] or [classes]; received shape "
                             f"{self._coefficients.shape}.")
        self._counts = checked_counts(class_counts, len(self._coefficients))

    @property
    def kind(self) -> tuple[Any, ...]:
        """What loss it is, Φ apart: the form, the shape of Φ, and the class counts."""
        return self._form.name, tuple(self._coefficients.shape), self._counts

    @property
    def coefficients(self) -> np.ndarray:
        """Φ."""
        return np.array(self._coefficients)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        check_logits(y_pred)
        return self._losses(integer_labels(y_true, self._coefficients.shape[0]), y_pred)

    def _losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        losses = self._form.losses(labels, logits, tf.cast(self._coefficients, logits.dtype), self._counts)
        return where_labelled(labels, losses)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "form": self._form.name, "coefficients": self.coefficients.tolist(),
                "class_counts": None if self._counts is None else list(self._counts)}


@keras.saving.register_keras_serializable(package="tf_l2t")
class TeacherLoss(TaughtLoss):
    """A taught loss whose Φ the callback `tf_l2t.Teaching` changes; `teacher.as_keras_loss()` makes it.

        model.compile("adam", loss=teacher.as_keras_loss(), metrics=["accuracy"])
        model.fit(x, y, callbacks=[tf_l2t.Teaching(teacher, dev_data=(x_dev, y_dev), num_steps=1100)])

    A saved model (`tf_l2t.load_model`) keeps all of it in its config, and a file of weights, such as `BackupAndRestore`
    writes, beside them.

    Args:
      form, coefficients, class_counts, reduction: as for `TaughtLoss`; Φ to begin with.
      train_accuracy: the running accuracy on train batches, a part of the status.
      interval: number of the steps' interval, of `Teaching`'s k, at whose beginning Φ was set; −1 for none.

    Raises:
      ValueError: as `TaughtLoss`.
      tf.errors.InvalidArgumentError: as `TaughtLoss`; and when it trains a model without the callback, which under XLA
        makes the weights NaN.
    """

    def __init__(self, form: str, coefficients: Any, class_counts: Any = None, reduction: str = "sum_over_batch_size",
                 name: str | None = None, dtype: Any = None, train_accuracy: float = 0.0, interval: int = -1):
        super().__init__(form, coefficients, class_counts, reduction, name, dtype)
        self._coefficients = tf.Variable(self._coefficients, False, dtype=tf.float32)
        self.train_accuracy = tf.Variable(train_accuracy, False, dtype=tf.float32)
        # For how many steps the callback is there: it says so before every execution, as a fit may end in the middle.
        self.taught = tf.Variable(0, False, dtype=tf.int64)
        self.interval = interval

    def change(self, coefficients: tf.Tensor, interval: int) -> None:
        """Sets Φ."""
        self._coefficients.assign(coefficients)
        self.interval = interval

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = integer_labels(y_true, self._coefficients.shape[0])

        @tf.custom_gradient
        def noticed(logits: tf.Tensor) -> Any:
            """The logits. What belongs to training alone is done where their gradient is asked for: an evaluation has
            none, whoever begins it."""
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                taught = self.taught.read_value() > 0
                check = tf.raw_ops.Assert(condition=taught, data=[NO_TEACHING])
                new = running_accuracy(self.train_accuracy, accuracy(labels, logits))
                self.train_accuracy.assign(new)  # a state's change: graphs do it whatever is asked of them
                self.taught.assign(tf.maximum(self.taught - 1, 0))
                with tf.control_dependencies([check] if check is not None else []):
                    return upstream * tf.cast(tf.where(taught, 1.0, np.nan), upstream.dtype)

            return tf.identity(logits), gradient

        return self._losses(labels, noticed(y_pred))

    def save_own_variables(self, store: Any) -> None:
        """To a file of a model's weights, which Keras writes."""
        store["coefficients"] = self.coefficients
        store["train_accuracy"] = self.train_accuracy.numpy()
        store["interval"] = np.asarray(self.interval)

    def load_own_variables(self, store: Any) -> None:
        """From such a file; one of a model with another loss changes nothing."""
        if {"coefficients", "train_accuracy", "interval"} <= set(store.keys()):
            self.change(np.asarray(store["coefficients"]), int(np.asarray(store["interval"])))
            self.train_accuracy.assign(np.asarray(store["train_accuracy"]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "train_accuracy": float(self.train_accuracy.numpy()),
                "interval": self.interval}
