"""Losses without weights of their own, by name, as Keras' `DistillationLoss`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_l2t.distillation.encoders import attention_scores, patient
from tf_l2t.distillation.maps import attention_transfer, neuron_selectivity, similarity_preserving
from tf_l2t.distillation.relations import correlation_congruence, probabilistic, relational
from tf_l2t.distillation.targets import kullback_leibler, soft_cross_entropy
from tf_l2t.options import check_kind


class Matching(NamedTuple):
    """A loss, and the taps that it compares in the public code (`tf_l2t.distillation.pairs`)."""

    loss: Callable[..., tf.Tensor]
    at: str


MATCHING: dict[str, Matching] = {
    "kd": Matching(kullback_leibler, "logits"),
    "soft_cross_entropy": Matching(soft_cross_entropy, "logits"),
    "at": Matching(attention_transfer, "stages"),
    "nst": Matching(neuron_selectivity, "stages"),
    "sp": Matching(similarity_preserving, "last_stage"),
    "rkd": Matching(relational, "pooled"),
    "pkt": Matching(probabilistic, "pooled"),
    "attention_scores": Matching(attention_scores, "attentions"),
    "patient": Matching(patient, "patient"),
    "cc": Matching(correlation_congruence, "pooled"),  # of features of one width; else `CorrelationCongruence`
}
"""The losses between inner tensors of student and teacher, by name."""


def check_options(what: str, target: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ValueError for options that `target`, which `what` names, does not have a default for, or of another kind
    than the default."""
    known = {name: parameter.default for name, parameter in inspect.signature(target).parameters.items()
             if parameter.default is not inspect.Parameter.empty}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{what} takes the options {sorted(known)}; received {unknown}.")
    for name, value in options.items():
        check_kind(name, value, type(known[name]).__name__, what)


@keras.saving.register_keras_serializable(package="tf_l2t")
class MatchingLoss(keras.distillation.DistillationLoss):
    """A loss of `MATCHING`, for `DistillationTrainer` and for Keras' own `Distiller`.

        keras.distillation.Distiller(teacher, student, [MatchingLoss("kd", temperature=4.0), MatchingLoss(
            "at", teacher_layer_name="stage3", student_layer_name="stage2")], student_loss_weight=0.1)

    Args:
      loss: a name in `MATCHING`.
      teacher_layer_name, student_layer_name: the layers whose outputs Keras' `Distiller` compares; None for the models'
        own outputs.
      **options: of the loss, such as `temperature`.

    Raises:
      ValueError: for an unknown loss or option, or one layer name of the two; from `compute_loss`, as the loss.
    """

    def __init__(self, loss: str, teacher_layer_name: str | None = None, student_layer_name: str | None = None,
                 **options: Any):
        if loss not in MATCHING:
            raise ValueError(f"loss must be one of {sorted(MATCHING)}; received {loss!r}.")
        if (teacher_layer_name is None) != (student_layer_name is None):
            raise ValueError("name a layer of both networks, or none; received "
                             f"{teacher_layer_name!r}, {student_layer_name!r}.")
        check_options(f"the loss {loss!r}", MATCHING[loss].loss, options)
        self.loss, self.options = loss, options
        self.teacher_layer_name, self.student_layer_name = teacher_layer_name, student_layer_name

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Raises ValueError unless both are one tensor; shapes are looked at by the loss."""
        for outputs in (teacher_outputs, student_outputs):
            if isinstance(outputs, (list, tuple, dict)):
                raise ValueError(f"{self.loss!r} compares two tensors; received {type(outputs).__name__}.")

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> tf.Tensor:
        """The loss of two tensors, a scalar; nothing flows back to the teacher."""
        return MATCHING[self.loss].loss(tf.stop_gradient(teacher_outputs), student_outputs, **self.options)

    def get_config(self) -> dict[str, Any]:
        """Its arguments, as Keras serialises them."""
        return {"loss": self.loss, "teacher_layer_name": self.teacher_layer_name,
                "student_layer_name": self.student_layer_name, **self.options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MatchingLoss:
        """The loss that `get_config` described."""
        return cls(**config)
