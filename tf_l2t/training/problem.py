"""From a Keras student, arrays and a loss to the engine's `Problem`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_l2t.data import ArrayPair, array_batches
from tf_l2t.data.augment import Augment
from tf_l2t.features import classification_features, dev_sample
from tf_l2t.hypergradient import InnerOptimizer, Problem, StepOutput
from tf_l2t.objectives import accuracy
from tf_l2t.students import FunctionalStudent
from tf_l2t.training.parts import in_parts

# Dev examples are looked at in parts whose layers' outputs are so large together, or which are as large as a batch.
PART_BYTES = 250_000_000

PerExampleLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
Objective = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def classification_problem(student: FunctionalStudent, train: ArrayPair, dev: ArrayPair, *, loss: PerExampleLoss,
                           objective: Objective, optimizer: InnerOptimizer, num_steps: int, batch_size: int,
                           refresh_every: int = 20, dev_sample_size: int | None = 500,
                           augment: Augment | None = None) -> Problem:
    """A classifier's training run as the engine takes it.

    Args:
      student: the network.
      train, dev: checked arrays; M is measured on all of `dev`.
      loss: (labels, logits, coefficients) -> [batch]; the mini-batch loss is its mean plus the student's
        regularisers.
      objective: (labels, logits) -> M.
      optimizer: the student's.
      num_steps: T.
      batch_size: of the mini-batches.
      refresh_every: k, the number of steps for which s_t is held.
      dev_sample_size: the number of dev examples that s_t looks at.
      augment: as for `tf_l2t.data.array_batches`.

    Raises:
      ValueError: if a size does not fit the data.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; received {num_steps!r}.")
    dtype = student.dtype  # under mixed precision the layers cast their inputs themselves; losses are not to suffer
    x_dev, y_dev = tf.cast(dev.x, dtype), tf.convert_to_tensor(dev.y)
    x_sample, y_sample = dev_sample(dev.x, dev.y, dev_sample_size)

    def whole(params, non_trainable, x):
        return tf.cast(student.apply(params, non_trainable, x, training=False)[0], dtype)

    logits_fn = in_parts(whole, max(batch_size, PART_BYTES // (student.numbers_per_example * tf.as_dtype(dtype).size)))

    def loss_fn(params, non_trainable, batch, coefficients):
        x, y = batch
        logits, non_trainable, penalty = student.apply(params, non_trainable, x, training=True)
        logits = tf.cast(logits, dtype)
        losses = loss(y, logits, tf.cast(coefficients, dtype))
        mean = tf.reduce_mean(losses) + tf.cast(penalty, dtype)
        return StepOutput(mean, non_trainable, {"accuracy": accuracy(y, logits)})

    return Problem(
        loss_fn=loss_fn,
        batch_fn=array_batches(tf.cast(train.x, dtype), train.y, batch_size, augment),
        objective_fn=lambda params, non_trainable: objective(y_dev, logits_fn(params, non_trainable, x_dev)),
        optimizer=optimizer,
        features=classification_features(logits_fn, tf.cast(x_sample, dtype), tf.convert_to_tensor(y_sample),
                                         student.num_classes, num_steps, refresh_every, dtype),
        num_steps=num_steps)
