"""What a teacher is told of its training, for its card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tf_l2t.teachers import Teacher
from tf_l2t.training.teacher_progress import Progress
from tf_l2t.training.validation import Validation, weights_of


def described(model: keras.Model) -> dict[str, Any]:
    """Name and input of a student, for a teacher's card; without a name of its own, the classes of its layers."""
    layers = [type(layer).__name__ for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    shape = getattr(model, "input_shape", None)
    given = not model.name.startswith(("functional", "sequential"))  # with which Keras counts them
    shown = layers if len(layers) < 9 else [*layers[:4], "…", layers[-1]]
    return {"student": model.name if given else ", ".join(shown), "student_weights": model.count_params(),
            **({"student_input": list(shape[1:])} if isinstance(shape, tuple) else {})}


def optimizer_words(identity: Any) -> str:
    """An `optimizer_identity` in a few words, such as "SGD, learning rate 0.05, momentum 0.9"."""
    if not isinstance(identity, dict):
        return str(identity)
    words, rate = [identity["class"]], identity.get("learning_rate")
    if isinstance(rate, dict):
        first = rate.get("config", {}).get("initial_learning_rate")
        words.append(f"{rate.get('class_name')}" + ("" if first is None else f" from {first:g}"))
    elif rate is not None:
        words.append(f"learning rate {rate:.6g}")
    if identity.get("momentum"):
        words.append(f"momentum {identity['momentum']:g}")
    return ", ".join(words)


def noting(teacher: Teacher, facts: dict[str, Any], progress: Progress, validate: Validation, validated_on: str
           ) -> Callable[[], None]:
    """A function that notes on the teacher what is known of it as it stands, as soon as there was a step.

    Args:
      teacher: at any time, its weights any.
      facts: that do not change.
      progress: how far its training is.
      validate: which knows how well it did, where it was validated with these weights.
      validated_on: on what.
    """
    def note() -> None:
        if progress.step:
            known = validate.known(weights_of(teacher))
            found: dict[str, Any] = {name: value for name, value in known.items() if np.isfinite(value)}
            if found:
                found["validated_on"] = validated_on
            teacher.note_training(facts | {"teacher_steps": progress.step, "dropped": progress.dropped} | found)

    return note
