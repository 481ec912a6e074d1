"""Fixed losses as Keras losses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.losses.registry import fixed_loss


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
        if y_true.shape.rank not in (1, None) and y_true.shape[1:].num_elements() != 1:
            raise ValueError(f"labels must be integers [batch]; received shape {tuple(y_true.shape)}. One-hot labels: "
                             "pass np.argmax(y, axis=-1).")
        return self._function(tf.cast(tf.reshape(y_true, [-1]), tf.int32), y_pred)

    def get_config(self) -> dict[str, Any]:
        options = {key: np.asarray(value).tolist() for key, value in self._options.items()}
        return {**super().get_config(), "loss": self._loss, **options}
