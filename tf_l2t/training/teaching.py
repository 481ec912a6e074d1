"""A teacher's loss on an untouched Keras model: the callback that sets Φ_t."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf

from tf_l2t.data import check_dev, check_pair, two_parts
from tf_l2t.features import dev_sample, status_vector
from tf_l2t.hypergradient.state import integer_tensor
from tf_l2t.losses import TeacherLoss
from tf_l2t.losses.keras_loss import check_no_probabilities
from tf_l2t.students import check_classifier
from tf_l2t.teachers import Teacher
from tf_l2t.training.taught_student import check_fits, warn_of_length


class Teaching(keras.callbacks.Callback):
    """Sets the coefficients of a model's loss as its teacher says, along the model's own `fit`.

        teacher = tf_l2t.load_teacher("runs/teacher")
        model.compile("sgd", loss=teacher.as_keras_loss(), metrics=["accuracy"])
        model.fit(x, y, callbacks=[tf_l2t.Teaching(teacher, dev_data=(x_dev, y_dev), num_steps=1100)])

    Before every k-th step the status s_t of the model is measured and Φ_t = μ_θ(s_t) becomes the coefficients of the
    loss; between, Φ is held: the training of `TaughtStudent`. t counts batches, from those on that the model's
    optimizer had seen when `fit` began; with `steps_per_execution` Φ changes before the first execution that begins in
    the next k steps. A saved model, and the file of weights of `BackupAndRestore`, keep Φ and the running train
    accuracy with the loss, so that a training goes on as it was.

    `val_loss` is the loss at the Φ of the moment, another function in another epoch: let EarlyStopping, ModelCheckpoint
    and ReduceLROnPlateau monitor a metric, such as `val_accuracy`.

    Args:
      teacher: whose `as_keras_loss` the model was compiled with.
      dev_data: (x, y), clean examples that the status is measured on.
      num_steps: T, the number of steps over which t/T runs from 0 to 1.
      refresh_every: k.
      dev_sample_size: at most this many dev examples are used.

    Raises:
      ValueError: for a number below 1 or dev data that do not fit the teacher; when `fit` begins, for a model that is
        no classifier of its classes that returns logits, has another loss, or several replicas.
    """

    def __init__(self, teacher: Teacher, dev_data: tuple[Any, Any], num_steps: int, refresh_every: int = 20,
                 dev_sample_size: int | None = 500):
        super().__init__()
        if not all(isinstance(number, numbers.Integral) and number >= 1 for number in (num_steps, refresh_every)):
            raise ValueError("num_steps and refresh_every must be at least 1; received "
                             f"num_steps={num_steps!r}, refresh_every={refresh_every!r}.")
        check_fits(teacher, getattr(teacher, "num_classes", 0))
        x, y = check_dev(check_pair(*two_parts(dev_data, "dev_data"), teacher.num_classes, "dev_data"), "dev_data")
        self._x, self._y = (tf.constant(part) for part in dev_sample(x, y, dev_sample_size))
        self._teacher, self._num_steps, self._every = teacher, num_steps, refresh_every
        self._measured: keras.Model | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._loss = self._checked()
        if self._measured is not self.model:  # a new function is traced anew
            self._measure, self._measured = tf.function(self._taught, autograph=False), self.model
        self._first: int | None = None
        if not optimizer_steps(self.model):
            warn_of_length(self.params, self._num_steps)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._first is None:  # by now BackupAndRestore has put the model back
            self._first = optimizer_steps(self.model)
            if not self._first:  # a model that begins, though its loss may have taught another
                self._loss.train_accuracy.assign(0.0)
                self._loss.interval = -1
        else:
            self._first = self._seen(self._first)
        self._batches = 0

    def _seen(self, first: int) -> int:
        """How many batches there were at the end of an epoch that began behind the first ones. The optimizer does not
        know: under a LossScaleOptimizer it does not count the steps that it skips."""
        steps = self.params.get("steps")
        if steps is None and (self.model.steps_per_execution or 1) > 1:
            return optimizer_steps(self.model)  # nobody says how short the last execution was
        return first + min(self._batches, steps or self._batches)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches = batch + 1  # with steps_per_execution perhaps of a batch that the data do not have

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        assert self._first is not None
        step = self._first + batch
        if step // self._every != self._loss.interval:
            self._loss.change(self._measure(integer_tensor(step), self._loss.train_accuracy), step // self._every)
        self._loss.taught.assign(self.model.steps_per_execution or 1)

    def on_train_end(self, logs: Any = None) -> None:
        self._loss.taught.assign(0)

    def _taught(self, step: tf.Tensor, train_accuracy: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(self.model(self._x, training=False), tf.float32)
        return self._teacher(status_vector(step, self._num_steps, train_accuracy, self._y, logits))

    def _checked(self) -> TeacherLoss:
        model, loss = self.model, the_loss(self.model)
        if not isinstance(loss, TeacherLoss):
            raise ValueError("compile the model with loss=teacher.as_keras_loss(); received "
                             f"{getattr(loss, 'name', loss)!r}.")
        ours = self._teacher.as_keras_loss()
        if loss.kind != ours.kind:
            raise ValueError(f"the model's loss is of another teacher: {loss.kind}; the callback's has {ours.kind}.")
        if model.distribute_strategy is not None and model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("under a strategy of several replicas train a tf_l2t.TaughtStudent.")
        if getattr(model, "output_shape", None) is not None:  # a subclassed model has none
            check_classifier(model, "model")
        logits = model(self._x[:8], training=False)
        expected = (min(8, self._x.shape[0]), self._teacher.num_classes)
        if tuple(getattr(logits, "shape", ())) != expected:
            raise ValueError(f"the model must return logits [batch, {self._teacher.num_classes}] of dev_data's "
                             f"examples; received shape {getattr(logits, 'shape', None)}.")
        check_no_probabilities(logits)
        return loss


def optimizer_steps(model: keras.Model) -> int:
    """How often a compiled model's optimizer was given gradients, those that it only accumulated too."""
    optimizer = model.optimizer
    while hasattr(optimizer, "inner_optimizer"):  # of mixed precision
        optimizer = optimizer.inner_optimizer
    return int(optimizer._iterations)  # `iterations` has whole accumulations alone


def the_loss(model: keras.Model) -> Any:
    """A model's loss; of one output it may have been compiled in a list or a dict."""
    loss = model.loss
    if isinstance(loss, dict):
        loss = list(loss.values())
    return loss[0] if isinstance(loss, list | tuple) and len(loss) == 1 else loss
