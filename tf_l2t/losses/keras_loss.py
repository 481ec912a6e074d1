"""Fixed losses as Keras losses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.losses.registry import fixed_loss


def integer_labels(y: tf.Tensor) -> tf.Tensor:
    """Labels as Keras hands them over, [batch] or [batch, 1] of any number type, as int32 [batch].

    Raises:
      ValueError: for labels of another shape.
    """
    if y.shape.rank not in (1, None) and y.shape[1:].num_elements() != 1:
        raise ValueError(f"labels must be integers [batch]; received shape {tuple(y.shape)}. One-hot labels: pass "
                         "np.argmax(y, axis=-1).")
    return tf.cast(tf.reshape(y, [-1]), tf.int32)


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
    """

    def __init__(self, loss: str, reduction: str = "sum_over_batch_size", name: str | None = None, dtype: Any = None,
                 **options: Any):
        super().__init__(name=name or loss, reduction=reduction, dtype=dtype)
        self._loss = loss
        self._options = options
        self._function = fixed_loss(loss, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(integer_labels(y_true), y_pred)

    def get_config(self) -> dict[str, Any]:
        options = {key: np.asarray(value).tolist() for key, value in self._options.items()}
        return {**super().get_config(), "loss": self._loss, **options}
