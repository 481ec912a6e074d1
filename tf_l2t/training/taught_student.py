"""A Keras model that a teacher trains."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.data import check_dev, check_pair, two_parts
from tf_l2t.features import dev_sample, status_vector
from tf_l2t.hypergradient.graphs import separate
from tf_l2t.hypergradient.replicas import check_one_machine, gradient_share
from tf_l2t.losses.keras_loss import (
    check_logits,
    check_no_probabilities,
    integer_labels,
    masked_weights,
    not_half,
    where_labelled,
)
from tf_l2t.objectives import accuracy, running_accuracy
from tf_l2t.students import check_classifier, check_examples
from tf_l2t.teachers import Teacher


@keras.saving.register_keras_serializable(package="tf_l2t")
class TaughtStudent(keras.Model):
    """A Keras classifier trained by a teacher's loss, through ordinary `compile`, `fit`, `evaluate`, `save`.

        student = TaughtStudent(model, teacher, dev_data=(x_dev, y_dev), num_steps=1100)
        student.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
        student.fit(x_train, y_train, validation_data=(x_val, y_val))

    Before every k-th step the student's status s_t is measured and Φ_t = μ_θ(s_t) becomes the coefficients of the
    loss; between, Φ is held. Labels are integers. `compile` takes no loss. `evaluate` reports the loss at the
    current Φ. The teacher's weights and the dev sample become non-trainable weights of this model: a saved student
    goes on training after `tf_l2t.load_model`. The trained network itself is `student.student`.

    Args:
      student: a built Functional or Sequential model with logits as its output. It is trained in place.
      teacher: a `Teacher`, such as `tf_l2t.load_teacher` returns. Its weights are copied.
      dev_data: (x, y), clean examples that the status is measured on; `validation_data` never feeds it.
      num_steps: T, the number of steps over which t/T runs from 0 to 1.
      refresh_every: k.
      dev_sample_size: at most this many dev examples are used.

    Raises:
      ValueError: if teacher, student and dev data do not fit together.
    """

    def __init__(self, student: keras.Model, teacher: Teacher, dev_data: tuple[Any, Any], num_steps: int,
                 refresh_every: int = 20, dev_sample_size: int | None = 500, **kwargs: Any):
        num_classes = check_classifier(student)
        # Its precision, to whose gradients `compile` fits the optimizer; inputs it casts itself.
        super().__init__(**{"dtype": student.dtype_policy, "autocast": False} | kwargs)
        if not all(isinstance(number, numbers.Integral) and number >= 1 for number in (num_steps, refresh_every)):
            raise ValueError("num_steps and refresh_every must be at least 1; received "
                             f"num_steps={num_steps!r}, refresh_every={refresh_every!r}.")
        check_fits(teacher, num_classes)
        x, y = check_dev(check_pair(*two_parts(dev_data, "dev_data"), num_classes, "dev_data"), "dev_data")
        check_examples(student, x, "dev_data")
        self.student = student
        self.num_steps = num_steps
        self.refresh_every = refresh_every
        self._teacher = teacher
        x, y = dev_sample(x, y, dev_sample_size)
        self._x_dev = self._constant("dev_x", x)
        self._y_dev = self._constant("dev_y", y)
        self._theta = [self._constant(f"teacher_{i}", v.numpy()) for i, v in enumerate(teacher.theta)]
        self._coefficients = self._constant("coefficients", np.zeros(teacher.coefficients_shape, np.float32))
        self._train_accuracy = self.add_weight(name="running_train_accuracy", shape=(), dtype="float32",
                                               initializer="zeros", trainable=False, aggregation="mean")
        self._step = self._constant("step", np.zeros((), np.int32))
        self.built = True

    def _constant(self, name: str, value: np.ndarray) -> Any:
        value = np.asarray(value)
        return self.add_weight(name=name, shape=value.shape, dtype=value.dtype.name, trainable=False,
                               aggregation="only_first_replica",
                               initializer=lambda shape, dtype: keras.ops.convert_to_tensor(value, dtype))

    @property
    def teacher(self) -> Teacher:
        """As it was given; this model trains with a copy of its weights."""
        return self._teacher

    @property
    def coefficients(self) -> np.ndarray:
        """Φ as of the last refresh, of the teacher's `coefficients_shape`; zeros before the first step."""
        return np.array(self._coefficients)

    @property
    def step(self) -> int:
        """How many steps this student has been trained."""
        return int(self._step.numpy())

    @property
    def running_train_accuracy(self) -> float:
        """The exponential average of the mini-batches' accuracies that s_t holds."""
        return float(self._train_accuracy.numpy())

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.student(inputs, training=training)

    def fit(self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1,
            verbose: str | int = "auto", callbacks: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; arrays are checked before any work.

        Warns of a first fit that is much shorter or longer than `num_steps`, and of callbacks that monitor `loss` or
        `val_loss`: that is the loss at the Φ of the moment, another function in another epoch.

        Raises:
          ValueError: for labels that are no integers in range, inputs that are not finite, if `compile` was given a
            loss, if the student returns probabilities, or under a strategy of several machines.
        """
        if getattr(self, "loss", None) is not None:
            raise ValueError("the teacher sets the loss of a TaughtStudent: call compile without one.")
        check_one_machine(self.distribute_strategy)
        if isinstance(x, np.ndarray) and y is not None:
            check_pair(x, y, self._coefficients.shape[0], "the training data")
        check_no_probabilities(self.student(self._x_dev.value[:8], training=False))
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*_as_list(callbacks), _Length()]
        for callback in getattr(callbacks, "callbacks", callbacks):
            monitor = getattr(callback, "monitor", None)  # of a ModelCheckpoint that keeps all, asked for by nobody
            if monitor in ("loss", "val_loss") and getattr(callback, "save_best_only", True):
                warnings.warn(f"{type(callback).__name__} monitors {monitor!r}, the loss at the coefficients of the "
                              "moment: it rises and falls with them. Let it monitor a metric, such as val_accuracy.",
                              stacklevel=2)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        refresh = tf.equal(self._step.value % self.refresh_every, 0)
        # In a graph of its own the branch is one node, which a step that does not take it passes over at once.
        self._coefficients.assign(tf.cond(refresh, separate(self._fresh_coefficients),
                                          lambda: self._coefficients.value + 0))
        logs = super().train_step(data)
        self._step.assign_add(1)
        return logs

    def _fresh_coefficients(self) -> tf.Tensor:
        logits = not_half(self.student(self._x_dev.value, training=False))  # which has no t / T of 70,000 steps
        features = status_vector(self._step.value, self.num_steps, self._train_accuracy.value, self._y_dev.value,
                                 logits)
        return tf.cast(self._teacher.apply(tuple(v.value for v in self._theta), features), tf.float32)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
                     training: bool = True) -> Any:
        """The mean over the batch, of examples that are not masked, of sample_weight · l_Φ(y, logits), plus
        regularisers."""
        del x
        mask = masked_weights(y_pred, tf.float32)
        check_logits(y_pred)
        y_pred = not_half(y_pred)
        labels = integer_labels(y, tf.shape(y_pred)[-1])
        if training:
            self._train_accuracy.assign(running_accuracy(self._train_accuracy.value, accuracy(labels, y_pred)))
        losses = self._teacher.per_example(labels, y_pred, tf.cast(self._coefficients.value, y_pred.dtype))
        losses = where_labelled(labels, losses)
        for weights in (sample_weight, mask):
            if weights is not None:
                losses *= tf.cast(tf.reshape(weights, [-1]), losses.dtype)
        loss = tf.add_n([tf.reduce_mean(losses), *(tf.cast(extra, losses.dtype) for extra in self.losses)])
        return loss * gradient_share(loss)  # Keras sums over replicas, in `evaluate` too

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.export`, of the student: what it computes needs no teacher."""
        return self.student.export(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "student": keras.saving.serialize_keras_object(self.student),
                "teacher": self._teacher.spec(), "dev_shape": list(self._x_dev.shape),
                "dev_dtype": keras.backend.standardize_dtype(self._x_dev.dtype), "num_steps": self.num_steps,
                "refresh_every": self.refresh_every}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TaughtStudent:
        config = dict(config)
        student = keras.saving.deserialize_keras_object(config.pop("student"), custom_objects=custom_objects)
        shape, dtype = config.pop("dev_shape"), config.pop("dev_dtype")
        # Stand-ins of the right shape: the values are among the saved weights, which Keras loads next.
        stand_in = (np.zeros(shape, dtype), np.arange(shape[0]) % 2)
        return cls(student, Teacher.from_spec(config.pop("teacher")), stand_in, dev_sample_size=None, **config)


class _Length(keras.callbacks.Callback):
    """Warns of a fit whose length is not that of the training."""

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.model.step:
            warn_of_length(self.params, self.model.num_steps)


def _as_list(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks] if callbacks else []


def check_fits(teacher: Teacher, num_classes: int) -> None:
    """Raises ValueError unless `teacher` is one for `num_classes` classes and the features of classification."""
    if not isinstance(teacher, Teacher):
        raise ValueError("the teacher must be a tf_l2t.teachers.Teacher, such as tf_l2t.load_teacher returns; received "
                         f"{type(teacher).__name__}.")
    if teacher.num_classes != num_classes:
        raise ValueError(f"the teacher is for {teacher.num_classes} classes, the student has {num_classes}. "
                         "Load, or train, a teacher of the student's classes.")
    if teacher.num_features != num_classes + 3:
        raise ValueError(f"the teacher takes {teacher.num_features} features; a student of {num_classes} classes has "
                         f"{num_classes + 3}: t/T, train accuracy, dev accuracy and {num_classes} precisions.")


def warn_of_length(params: dict[str, Any], num_steps: int) -> None:
    """Warns of a `fit`, the first of its model, by whose `params` t/T would not come near 1.

    Args:
      params: of its callbacks.
      num_steps: T.
    """
    end = (params["epochs"] or 1) * (params.get("steps") or 0)
    if end and not 0.5 <= end / num_steps <= 1.5:
        warnings.warn(f"this fit makes {end} steps, and num_steps is {num_steps}: t/T would end at "
                      f"{end / num_steps:.2g}. num_steps is that of the whole training, epochs times the steps of one.",
                      stacklevel=2)
