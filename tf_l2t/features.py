"""The student's status s_t, which is all that a teacher sees (L2T-DLF, section 4.1).

For C classes, C + 3 numbers in [0, 1]: t/T, running train accuracy, dev accuracy, dev precision of every class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_l2t.hypergradient import StatusFeatures, StudentState
from tf_l2t.objectives import accuracy, class_precision, running_accuracy


def feature_names(num_classes: int) -> tuple[str, ...]:
    """The names of the numbers of s_t, in order."""
    return ("progress", "train_accuracy", "dev_accuracy", *(f"dev_precision_{c}" for c in range(num_classes)))


def status_vector(step: tf.Tensor, num_steps: int, train_accuracy: tf.Tensor, labels: tf.Tensor,
                  logits: tf.Tensor) -> tf.Tensor:
    """s_t, [classes + 3], from the step, the running train accuracy and the student's logits on the dev sample.

    Steps beyond `num_steps` count as the last one, so that s_t stays in the range that the teacher has seen.
    """
    progress = tf.minimum(tf.cast(step, logits.dtype) / num_steps, 1)
    return tf.concat([tf.stack([progress, tf.cast(train_accuracy, logits.dtype), accuracy(labels, logits)]),
                      class_precision(labels, logits)], axis=0)


def dev_sample(x: Any, y: Any, size: int | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`size` examples of the dev set, drawn without replacement by `seed`; all of them if `size` is None or more."""
    x, y = np.asarray(x), np.asarray(y)
    if size is None or size >= len(x):
        return x, y
    if size < 1:
        raise ValueError(f"the dev sample needs at least 1 example; received size={size!r}.")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:size])
    return x[chosen], y[chosen]


class Status(NamedTuple):
    """What the features remember: the running train accuracy, and s_t since its last refresh."""

    train_accuracy: tf.Tensor
    features: tf.Tensor


def classification_features(logits_fn: Callable[..., tf.Tensor], x_dev: tf.Tensor, y_dev: tf.Tensor,
                            num_classes: int, num_steps: int, refresh_every: int, dtype: Any) -> StatusFeatures:
    """s_t as the engine's `StatusFeatures`, refreshed before the steps 0, k, 2k, … and held in between.

    Args:
      logits_fn: (params, non_trainable, x) -> logits of the student at inference.
      x_dev, y_dev: the dev sample, [examples, ...] and integer [examples].
      num_classes: C.
      num_steps: T, by which t is divided.
      refresh_every: k.
      dtype: of s_t.
    """
    if refresh_every < 1:
        raise ValueError(f"refresh_every must be at least 1; received {refresh_every!r}.")

    def init() -> Status:
        return Status(tf.zeros((), dtype), tf.zeros((num_classes + 3,), dtype))

    def features(state: StudentState) -> tuple[tf.Tensor, Status]:
        def fresh() -> tf.Tensor:
            logits = logits_fn(state.params, state.non_trainable, x_dev)
            return status_vector(state.step, num_steps, state.status.train_accuracy, y_dev, logits)

        current = tf.cond(tf.equal(state.step % refresh_every, 0), fresh, lambda: state.status.features)
        current = tf.ensure_shape(current, [num_classes + 3])
        return current, state.status._replace(features=current)

    def update(status: Status, metrics: dict[str, tf.Tensor]) -> Status:
        return status._replace(train_accuracy=running_accuracy(status.train_accuracy, metrics["accuracy"]))

    return StatusFeatures(init, features, update)
