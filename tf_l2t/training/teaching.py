"""A teacher's loss on an untouched Keras model: the callback that sets Φ_t."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_l2t.data import check_dev, check_pair
from tf_l2t.features import dev_sample, status_vector
from tf_l2t.losses import TaughtLoss
from tf_l2t.students import check_classifier
from tf_l2t.teachers import Teacher
from tf_l2t.training.taught_student import check_fits


class Teaching(keras.callbacks.Callback):
    """Sets the coefficients of a model's loss as its teacher says, along the model's own `fit`.

        teacher = tf_l2t.load_teacher("runs/teacher")
        model.compile("sgd", loss=teacher.as_keras_loss(), metrics=["accuracy"])
        model.fit(x, y, callbacks=[tf_l2t.Teaching(teacher, dev_data=(x_dev, y_dev), num_steps=1100)])

    Before every k-th step, and the first of a `fit`, the status s_t of the model is measured and Φ_t = μ_θ(s_t) becomes
    the coefficients of the loss; between, Φ is held: the training of `TaughtStudent`, with t the steps of the model's
    optimizer. A saved model keeps Φ and the running train accuracy in its loss; what `BackupAndRestore` keeps is
    weights alone, so that after it the running accuracy begins at 0 in a new process, where `TaughtStudent` goes on
    with it.

    Args:
      teacher: whose `as_keras_loss` the model was compiled with.
      dev_data: (x, y), clean examples that the status is measured on.
      num_steps: T, the number of steps over which t/T runs from 0 to 1.
      refresh_every: k, a multiple of the model's `steps_per_execution`.
      dev_sample_size: at most this many dev examples are used.

    Raises:
      ValueError: for a number below 1 or dev data that do not fit the teacher; when `fit` begins, for a model that is
        no classifier of its classes, has another loss, several replicas, or a `steps_per_execution` that does not
        divide `refresh_every`.
    """

    def __init__(self, teacher: Teacher, dev_data: tuple[Any, Any], num_steps: int, refresh_every: int = 20,
                 dev_sample_size: int | None = 500):
        super().__init__()
        if num_steps < 1 or refresh_every < 1:
            raise ValueError("num_steps and refresh_every must be at least 1; received "
                             f"num_steps={num_steps!r}, refresh_every={refresh_every!r}.")
        check_fits(teacher, getattr(teacher, "num_classes", 0))
        x, y = check_dev(check_pair(*dev_data, teacher.num_classes, "dev_data"), "dev_data")
        self._x, self._y = (tf.constant(part) for part in dev_sample(x, y, dev_sample_size))
        self._teacher, self._num_steps, self._every = teacher, num_steps, refresh_every
        self._begun = self._trains = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._loss = self._checked()
        self._measure = tf.function(self._taught, autograph=False)
        self._begun, self._trains = False, True
        self._loss.watch(True)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        step = int(self.model.optimizer.iterations)
        if step % self._every == 0 or not self._begun:
            self._loss.change(self._measure(tf.constant(step), self._loss.train_accuracy))
            self._begun = True

    def on_train_end(self, logs: Any = None) -> None:
        self._trains = False
        self._loss.watch(False)

    def on_test_begin(self, logs: Any = None) -> None:
        if self._trains:
            self._loss.watch(False)

    def on_test_end(self, logs: Any = None) -> None:
        if self._trains:
            self._loss.watch(True)

    def _taught(self, step: tf.Tensor, train_accuracy: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(self.model(self._x, training=False), tf.float32)
        return self._teacher(status_vector(step, self._num_steps, train_accuracy, self._y, logits))

    def _checked(self) -> TaughtLoss:
        model, loss = self.model, self.model.loss
        if not isinstance(loss, TaughtLoss) or not loss.changes:
            raise ValueError("compile the model with loss=teacher.as_keras_loss(); received "
                             f"{getattr(loss, 'name', loss)!r}.")
        of_loss = loss.form, loss.coefficients.shape
        of_teacher = self._teacher.loss, tuple(self._teacher.coefficients_shape)
        if of_loss != of_teacher:
            raise ValueError(f"the model's loss is of another teacher: {of_loss}, and the callback's has {of_teacher}.")
        if model.distribute_strategy is not None and model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError("under a strategy of several replicas train a tf_l2t.TaughtStudent.")
        if self._every % model.steps_per_execution:
            raise ValueError("refresh_every must be a multiple of the model's steps_per_execution; received "
                             f"{self._every}, {model.steps_per_execution}.")
        if getattr(model, "output_shape", None) is not None:  # a subclassed model has none
            check_classifier(model, "model")
        logits = model(self._x[:1], training=False)
        if tuple(getattr(logits, "shape", ())) != (1, self._teacher.num_classes):
            raise ValueError(f"the model must return logits [batch, {self._teacher.num_classes}] of dev_data's "
                             f"examples; received shape {getattr(logits, 'shape', None)}.")
        return loss
