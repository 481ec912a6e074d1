"""The terms of a student's loss that compare inner tensors, by name: what they are made of and where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_l2t.distillation.connectors import (
    ActivationBoundaries,
    CorrelationCongruence,
    FactorTransfer,
    FitNet,
    VariationalInformation,
)
from tf_l2t.distillation.contrastive import ContrastiveRepresentation
from tf_l2t.distillation.encoders import HiddenStates
from tf_l2t.distillation.matching import MATCHING, MatchingLoss, check_options
from tf_l2t.distillation.pairs import pairs
from tf_l2t.students import taps


class Kind(NamedTuple):
    """How a term is made.

    Attributes:
      make: (**options) -> a `MatchingLoss`, or a Keras layer of two tensors.
      at: a name in `tf_l2t.distillation.PLACES`.
      scale: (i, n, options) -> the factor of the i-th of n pairs, from 0.
      shared: whether one loss, with its weights, is that of all pairs.
      examples: whether it is told the examples' indices and labels.
    """

    make: Callable[..., Any]
    at: str
    scale: Callable[[int, int, Mapping[str, Any]], float] = lambda i, n, options: 1.0
    shared: bool = False
    examples: bool = False


def _matching(name: str, at: str = "", **fields: Any) -> Kind:
    return Kind(lambda **options: MatchingLoss(name, **options), at or MATCHING[name].at, **fields)


def _mean_in_code(i: int, n: int, options: Mapping[str, Any]) -> float:
    """Patient distillation's code has the mean over layers, its paper the sum."""
    return 1.0 / n if options.get("variant", "code") == "code" else 1.0


TERMS: dict[str, Kind] = {
    **{name: _matching(name) for name in ("at", "nst", "sp", "rkd", "pkt", "attention_scores")},
    "patient": _matching("patient", scale=_mean_in_code),
    "patient_last": _matching("patient", "patient_last", scale=_mean_in_code),
    "hidden_states": Kind(HiddenStates, "hidden", shared=True),
    "fitnet": Kind(FitNet, "hint"),
    "ab": Kind(ActivationBoundaries, "preactivations", lambda i, n, options: 2.0 ** (i - n + 1)),
    "vid": Kind(VariationalInformation, "stages"),
    "cc": Kind(CorrelationCongruence, "pooled"),
    "ft": Kind(FactorTransfer, "last_stage"),
    "crd": Kind(ContrastiveRepresentation, "pooled", examples=True),
}
"""The kinds of terms that a method's loss is a sum of, by name."""


_OF_KERAS = Kind(lambda **options: None, "logits")


class Examples(NamedTuple):
    """Of a batch: indices among all train examples (None if not known) and labels, [batch]."""

    indices: tf.Tensor | None
    labels: tf.Tensor


class Term:
    """A term of the student's loss: the sum over pairs of taps of a loss that may have weights of its own.

    Args:
      name: in `TERMS`; or a loss of Keras' distillation API, of the layers that it names or else of the logits.
      teacher, student: the networks, with named taps.
      options: of the loss.
      labels: of all train examples, [N], which terms that tell examples apart need.

    Attributes:
      pairs: names of the taps, of teacher and student.
      layers: the Keras layers among its parts.

    Raises:
      ValueError: for an unknown name or option, networks that do not fit, or labels that are missing.
    """

    def __init__(self, name: str | keras.distillation.DistillationLoss, teacher: keras.Model, student: keras.Model,
                 options: Mapping[str, Any] = {}, labels: np.ndarray | None = None):
        self._options, self._parts = options, list[Any]()
        if isinstance(name, keras.distillation.DistillationLoss):
            self._kind, self._parts = _OF_KERAS, [name]
            name.validate_model_compatibility(teacher, student)
            layers = (getattr(name, f"{role}_layer_name", None) for role in ("teacher", "student"))
            of_teacher, of_student = (layer or "logits" for layer in layers)
            self.pairs = [(of_teacher, of_student)]
            return
        if name not in TERMS:
            raise ValueError(f"the terms of a student's loss are {sorted(TERMS)}; received {name!r}.")
        self._kind, given = TERMS[name], dict(options)
        if self._kind.examples:
            if labels is None:
                raise ValueError(f"{name!r} tells the train examples apart: give their labels, [examples].")
            given["labels"] = labels
        if isinstance(self._kind.make, type):  # a `MatchingLoss` looks at its options itself
            check_options(f"the term {name!r}", self._kind.make, options)
            # Losses and their weights are not of the precision in which networks compute.
            given["dtype"] = keras.config.dtype_policy().variable_dtype
        self.pairs = pairs(self._kind.at, teacher, student)
        of_teacher, of_student = taps(teacher), taps(student)
        for teacher_tap, student_tap in self.pairs:
            if self._kind.shared and self._parts:
                self._parts.append(self._parts[0])
                continue
            part = self._kind.make(**given)
            try:
                _check_fits(part, of_teacher[teacher_tap].shape, of_student[student_tap].shape)
            except ValueError as error:
                raise ValueError(f"{name!r} cannot compare {teacher_tap!r} of {teacher.name!r} and {student_tap!r} of "
                                 f"{student.name!r}: {error}") from error
            self._parts.append(part)

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The Keras layers that are trained with the student: connectors, memories; each once."""
        parts = {id(part): part for part in self._parts}
        return [part for part in parts.values() if isinstance(part, keras.layers.Layer)]

    @property
    def needs_index(self) -> bool:
        """Whether the term must know which examples of the data set a batch holds."""
        return self._kind.examples

    def loss(self, teacher: Mapping[str, tf.Tensor], student: Mapping[str, tf.Tensor], examples: Examples,
             training: bool) -> tf.Tensor:
        """A scalar, of the networks' taps by name."""
        total = []
        for i, (part, names) in enumerate(zip(self._parts, self.pairs, strict=True)):
            tensors = tf.stop_gradient(teacher[names[0]]), student[names[1]]
            if isinstance(part, keras.distillation.DistillationLoss):
                value = part.compute_loss(*tensors)
            elif self._kind.examples:
                value = part(*tensors, examples.indices, examples.labels, training=training)
            else:
                value = part(*tensors, training=training)
            total.append(self._kind.scale(i, len(self._parts), self._options) * value)
        return tf.add_n(total)

    def preparation_loss(self, teacher: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What is minimised before the student's training, of the teacher's taps alone (factor transfer)."""
        return tf.add_n([part.reconstruction(tf.stop_gradient(teacher[names[0]]))
                         for part, names in zip(self._parts, self.pairs, strict=True)])


def _check_fits(part: Any, *shapes: Any) -> None:
    """Builds a layer, or traces a loss, for two shapes; raises ValueError if they do not fit."""
    if isinstance(part, keras.layers.Layer):
        part.build(*shapes)
    else:  # without autograph, errors are the loss's own
        specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        tf.function(part.compute_loss, autograph=False).get_concrete_function(*specs)
