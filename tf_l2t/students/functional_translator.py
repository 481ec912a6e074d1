"""A `Translator` as pure functions of its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tf_l2t.students.functional import FunctionalModel, Tensors
from tf_l2t.students.translator import Translator


class FunctionalTranslator(FunctionalModel):
    """A translation student as pure functions.

    Args:
      student_fn: as for `FunctionalModel`; builds a `Translator`.
      dtype: as for `FunctionalModel`.

    Raises:
      ValueError: as `FunctionalModel`, or for a model that is no `Translator`, or one that does not compute in the
        precision of its weights.
    """

    model: Translator

    def __init__(self, student_fn: Callable[[], Translator], dtype: str | None = None):
        super().__init__(student_fn, dtype)
        if not isinstance(self.model, Translator):
            raise ValueError("a translation student must be a tf_l2t.students.Translator; received "
                             f"{type(self.model).__name__}.")
        if self.model.compute_dtype != self.dtype:
            raise ValueError(f"a translation student computes in the precision of its weights, {self.dtype}; received "
                             f"one in {self.model.compute_dtype}.")

    def using(self, params: Tensors, non_trainable: Tensors, function: Callable[..., Any], *args: Any) -> Any:
        """`function`(model, *args) with these weights in the place of the model's own, such as a decoding.

            tokens = student.using(params, non_trainable, greedy, source, 50)
        """
        weights = [*zip(self.model.trainable_variables, params, strict=True),
                   *zip(self.model.non_trainable_variables, non_trainable, strict=True)]
        with keras.StatelessScope(state_mapping=weights):
            return function(self.model, *args)
