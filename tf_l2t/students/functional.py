"""A Keras model as a pure function of its weights: what the engine differentiates."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from tf_l2t.garbage import gone_afterwards
from tf_l2t.losses.keras_loss import check_logits

NAME_COUNTS = "object_name_uids"  # Keras' own, of keras.backend.get_uid
Tensors = tuple[tf.Tensor, ...]


@contextlib.contextmanager
def building(seed: int, dtype: str | None) -> Iterator[None]:
    """Keras draws the default seed of every initializer and random layer from Python's `random`; it is left as it
    was found, and so is the dtype policy."""
    state, policy = random.getstate(), keras.config.dtype_policy()
    random.seed(seed)
    if dtype is not None:
        keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        random.setstate(state)
        keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def names_as_before() -> Iterator[None]:
    """Keras counts the default names of layers on and on; here it goes back to where it was.

    TensorFlow keeps a kernel for every name that a variable ever had, some 35 KB: thousands of students, each with
    names of its own, would fill the memory.
    """
    counts = global_state.get_global_attribute(NAME_COUNTS)
    kept = None if counts is None else counts.copy()
    try:
        yield
    finally:
        global_state.set_global_attribute(NAME_COUNTS, kept)


class FunctionalModel:
    """A Keras model as pure functions of its weights.

    Args:
      student_fn: builds and returns a new `keras.Model`. It is called for every new initialisation, with Keras's
        default seeds drawn from the seed asked for; a layer or initializer with a seed of its own keeps it.
      dtype: a dtype policy to build the students under, such as "float64" or "mixed_bfloat16"; None for the current
        one.

    Attributes:
      model: one such model.
      dtype: of the weights, in which losses and measures are computed too: "float32" or "float64".

    Raises:
      ValueError: if `student_fn` returns a model without weights, or one whose precision no teacher can be trained in.
    """

    def __init__(self, student_fn: Callable[[], keras.Model], dtype: str | None = None):
        self._student_fn = student_fn
        self._dtype = dtype
        self.model = self.new_model(0)
        check_built(self.model)
        self.dtype = check_precision(self.model)
        self._template = [(w.shape, w.dtype) for w in self.model.trainable_variables]

    def new_model(self, seed: int) -> keras.Model:
        """A new Keras model, initialised by `seed`."""
        with building(seed, self._dtype):
            return self._student_fn()

    @gone_afterwards()
    def init(self, seed: int) -> tuple[Tensors, Tensors]:
        """(params, non_trainable) of a new student, initialised by `seed`.

        Raises:
          ValueError: if `student_fn` built a model of other shapes than the first time, or no new one.
        """
        with names_as_before():  # the model is gone when this returns
            model = self.new_model(seed)
        if model is self.model:
            raise ValueError("student_fn must build a new model at every call; it returned the same one twice.")
        weights = [(w.shape, w.dtype) for w in model.trainable_variables]
        if weights != self._template:
            raise ValueError("student_fn must build the same architecture at every call; it first built weights "
                             f"{self._template}, then {weights}.")
        return (tuple(tf.convert_to_tensor(w.value) for w in model.trainable_variables),
                tuple(tf.convert_to_tensor(w.value) for w in model.non_trainable_variables))

    def apply(self, params: Tensors, non_trainable: Tensors, x: Any,
              training: bool) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        """The model's output, the non-trainable weights afterwards, and the sum of its regularisation losses."""
        logits, non_trainable, losses = self.model.stateless_call(
            list(params), list(non_trainable), x, training=training, return_losses=True)
        penalty = tf.add_n(losses) if losses else tf.zeros((), logits.dtype)
        return logits, tuple(non_trainable), penalty


class FunctionalStudent(FunctionalModel):
    """A Functional or Sequential Keras classifier as pure functions.

    Args:
      student_fn: as for `FunctionalModel`; the model's output is logits [batch, classes].
      dtype: as for `FunctionalModel`.

    Attributes:
      num_classes: C.

    Raises:
      ValueError: as `FunctionalModel`, or if `student_fn` does not return a model with one output of logits.
    """

    def __init__(self, student_fn: Callable[[], keras.Model], dtype: str | None = None):
        super().__init__(student_fn, dtype)
        self.num_classes = check_classifier(self.model)
        self._count_correct = tf.function(self._count, autograph=False, reduce_retracing=True)

    def apply(self, params: Tensors, non_trainable: Tensors, x: Any,
              training: bool) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        """As of a `FunctionalModel`.

        Raises:
          ValueError: while it is traced, if the outputs are those of a softmax or a sigmoid.
        """
        found = super().apply(params, non_trainable, x, training)
        check_logits(found[0])
        return found

    @property
    def numbers_per_example(self) -> int:
        """How many numbers the outputs of all layers have together; an unknown length counts as 1."""
        layers = [layer for layer in self.model._flatten_layers(include_self=False) if layer._inbound_nodes]
        outputs = keras.tree.flatten([layer.output for layer in layers])
        return sum(math.prod(size or 1 for size in output.shape) for output in outputs)

    def accuracy(self, params: Tensors, non_trainable: Tensors, x: Any, y: Any, chunk: int = 2000) -> float:
        """The exact accuracy on (x, y), computed in chunks that bound the memory."""
        correct = sum(int(self._count_correct(params, non_trainable, tf.convert_to_tensor(x[i:i + chunk]),
                                              tf.convert_to_tensor(y[i:i + chunk]))) for i in range(0, len(x), chunk))
        return correct / len(x)

    def _count(self, params: Tensors, non_trainable: Tensors, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        logits = self.apply(params, non_trainable, x, training=False)[0]
        return tf.reduce_sum(tf.cast(tf.argmax(logits, -1, output_type=y.dtype) == y, tf.int32))


def check_built(model: keras.Model, role: str = "student") -> None:
    """Raises ValueError unless `model` is a Keras model that has its weights."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"a {role} must be a keras.Model; received {type(model).__name__}.")
    if not model.built:
        raise ValueError(f"the {role} {model.name!r} has no weights yet: give its first layer a keras.Input, "
                         "or call it once on data.")


def check_classifier(model: keras.Model, role: str = "student") -> int:
    """The number of classes of a student, or of what else errors name by its `role`.

    Raises:
      ValueError: unless `model` is a built Functional or Sequential Keras model with one output of logits,
        [batch, classes].
    """
    check_built(model, role)
    shape = getattr(model, "output_shape", None)
    if shape is None:
        raise ValueError(f"the {role} {model.name!r} must be a Functional or Sequential model; wrap a subclassed one: "
                         "inputs = keras.Input(shape); keras.Model(inputs, model(inputs)).")
    if not isinstance(shape, tuple) or len(shape) != 2 or not isinstance(shape[-1], int) or shape[-1] < 2:
        raise ValueError(f"a {role} must have one output of logits, [batch, classes], with at least 2 classes; "
                         f"{model.name!r} has output shape {shape!r}.")
    last: Any = model
    while isinstance(last, keras.Model) and getattr(last, "outputs", None):
        last = last.outputs[0]._keras_history.operation
    activation = getattr(last, "activation", None)
    end = next((end for end in ("softmax", "sigmoid") if (getattr(activation, "__name__", "") or
                                                          type(last).__name__).lower().startswith(end)), "")
    if end:
        raise ValueError(f"the {role} {model.name!r} ends in a {end}; it must return logits: remove the activation "
                         f"of layer {last.name!r}.")
    return int(shape[-1])


def check_examples(model: keras.Model, x: np.ndarray, what: str) -> None:
    """Raises ValueError unless `x`, of the data that `what` names, are examples of the shape that a student takes."""
    expected, received = tuple(model.input_shape[1:]), x.shape[1:]
    if len(expected) != len(received) or any(want not in (None, got)
                                             for want, got in zip(expected, received, strict=True)):
        raise ValueError(f"{what}: the student takes examples of shape {expected}; received {received}. Train, dev and "
                         "whatever a student is used on go through the same preprocessing.")


def check_precision(model: keras.Model) -> str:
    """The dtype of a student's weights.

    Raises:
      ValueError: unless all weights are float32 or all float64, and the layers compute in either or in bfloat16.
    """
    kept = sorted({w.dtype for w in model.trainable_variables})
    if kept not in (["float32"], ["float64"]):
        raise ValueError(f"a student's weights must be all float32 or all float64; those of {model.name!r} are {kept}. "
                         "Small updates would be lost in half precision: use the policy mixed_bfloat16, which keeps "
                         "the weights in float32.")
    half = sorted(layer.name for layer in model._flatten_layers(include_self=False) if layer.compute_dtype == "float16")
    if half:
        raise ValueError(f"layers {half} of {model.name!r} compute in float16, whose gradients need loss scaling, "
                         "which is not differentiated through: use the policy mixed_bfloat16 or float32.")
    return kept[0]
