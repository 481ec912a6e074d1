"""What every teacher is: Φ_t = μ_θ(s_t), a `tf.Module` that is also a function of its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_l2t.losses import TaughtForm, TeacherLoss, checked_counts, taught_form

DIAGONAL_PENALTY = 25.0


class Teacher(tf.Module):
    """Base class of teachers.

    A subclass creates its `tf.Variable`s in `__init__`, lists them in `theta`, and defines `apply`. It is known by
    its class name from then on: `from_spec` builds it again, which is how an exported teacher is loaded.

    Args:
      num_classes: C; coefficients are [C, C], or what `coefficients_shape` says.
      num_features: the length of s_t.
      loss: the name of the taught loss that the coefficients are for (`tf_l2t.losses.TAUGHT_FORMS`).
      ignored: numbers of the features that the teacher does not see: they count as 0.
      class_counts: n_c, [C], of the train set, where classes are of very unequal size: the loss is then taken of
        logits + log n_c / Σ n, as in logit adjustment (Menon et al., ICLR 2021), so that the teacher starts from that
        and not from cross entropy, and "soft" labels are softened in these proportions. None for the logits as they
        are.

    Raises:
      ValueError: for an unknown loss, fewer than two classes, no feature, an ignored feature that is not there, or
        counts below 1 or of another length.
    """

    _classes: ClassVar[dict[str, type[Teacher]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Teacher._classes[cls.__name__] = cls

    def __init__(self, num_classes: int, num_features: int, loss: str, ignored: Sequence[int] = (),
                 class_counts: Sequence[int] | None = None, name: str | None = None):
        super().__init__(name=name)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2; received {num_classes!r}.")
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1; received {num_features!r}.")
        if not all(0 <= i < num_features for i in ignored):
            raise ValueError(f"ignored must hold numbers of features, 0 … {num_features - 1}; received {ignored!r}.")
        self.num_classes = num_classes
        self.num_features = num_features
        self.loss = loss
        self._form = taught_form(loss)
        self._ignored = tuple(ignored)
        self._counts = checked_counts(class_counts, num_classes)
        self._training = "{}"  # JSON text: a dict would become part of the SavedModel's object graph

    @property
    def form(self) -> TaughtForm:
        """The taught loss that the coefficients are for."""
        return self._form

    @property
    def training(self) -> dict[str, Any]:
        """How the teacher was trained, as JSON values: empty until a trainer or `load_teacher` notes it."""
        return json.loads(self._training)

    def note_training(self, summary: dict[str, Any]) -> None:
        """Sets `training`."""
        self._training = json.dumps(summary)

    @property
    def theta(self) -> tuple[tf.Variable, ...]:
        """The trainable variables, in the order in which `apply` takes their values."""
        raise NotImplementedError

    @property
    def coefficients_shape(self) -> tuple[int, ...]:
        """Of one Φ: [C, C], or [C] for a teacher of diagonal ones."""
        return self.num_classes, self.num_classes

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        return self.theta

    def apply(self, theta: tuple[tf.Tensor, ...], features: tf.Tensor) -> tf.Tensor:
        """Φ [..., *coefficients_shape] from the values of `theta` and s [..., num_features]; differentiable in both."""
        raise NotImplementedError

    def __call__(self, features: tf.Tensor) -> tf.Tensor:
        return self.apply(tuple(tf.convert_to_tensor(v) for v in self.theta), features)

    def per_example(self, labels: tf.Tensor, logits: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
        """The loss l_Φ of every example, [batch], from integer labels [batch], logits [batch, C] and Φ."""
        return self._form.losses(labels, logits, coefficients, self._counts)

    def as_keras_loss(self, reduction: str = "sum_over_batch_size") -> TeacherLoss:
        """This teacher's loss for `compile` of any Keras classifier, to be trained with the callback `tf_l2t.Teaching`
        of the same teacher."""
        return TeacherLoss(self.loss, self.first.numpy(), self._counts, reduction)

    @property
    def first(self) -> tf.Tensor:
        """Φ_0, with which every teacher starts: the form's `start` on the diagonal, its `spread` beside it."""
        start, spread = self._form.start, self._form.spread
        if len(self.coefficients_shape) == 1:
            return tf.fill(self.coefficients_shape, start)
        return (start - spread) * tf.eye(self.num_classes) + spread

    def penalty(self, coefficients: tf.Tensor) -> tf.Tensor:
        """How far Φ [..., *coefficients_shape] is from treating all classes alike, the mean over leading axes.

            r = r_beside(A) + 25 Σ_i (A_ii − mean_k A_kk)²,  A = Φ / start

        The diagonal may move as a whole at no cost. What the other coefficients cost is a matter of the form: most want
        them to be 0 (`tf_l2t.losses.penalties.doubts`), "soft" wants them to be equal (`differences`).
        """
        relative = coefficients / self._form.start
        if len(self.coefficients_shape) == 1:
            return tf.reduce_mean(DIAGONAL_PENALTY * _variation(relative))
        diagonal = tf.linalg.diag_part(relative)
        beside = tf.linalg.set_diag(relative, tf.zeros_like(diagonal))
        return tf.reduce_mean(self._form.penalty(beside) + DIAGONAL_PENALTY * _variation(diagonal))

    def seen(self, features: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """What `apply` is to look at, [n, num_features]: the rows of s [..., num_features], ignored features zero."""
        rows = tf.reshape(tf.cast(features, dtype), [-1, self.num_features])
        if not self._ignored:
            return rows
        return rows * tf.constant([float(i not in self._ignored) for i in range(self.num_features)], dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build this teacher again (its weights apart)."""
        return {"num_classes": self.num_classes, "num_features": self.num_features, "loss": self.loss,
                "ignored": list(self._ignored),
                "class_counts": None if self._counts is None else list(self._counts)}

    def spec(self) -> dict[str, Any]:
        """Class name and config, as JSON holds them."""
        return {"class": type(self).__name__, "config": self.get_config()}

    @staticmethod
    def from_spec(spec: dict[str, Any]) -> Teacher:
        """A teacher of the class and config in `spec`, freshly initialised.

        Raises:
          ValueError: if no teacher class of that name is imported, or the config does not fit it.
        """
        known = Teacher._classes
        if not isinstance(spec.get("config"), dict) or not isinstance(spec.get("class"), str) \
                or spec["class"] not in known:
            raise ValueError(f"no teacher class is called {spec.get('class')!r}; known are {sorted(known)}. "
                             "Import the module that defines it first.")
        try:
            return known[spec["class"]](**spec["config"])
        except (AttributeError, LookupError, MemoryError, OverflowError, TypeError, ValueError,
                tf.errors.OpError) as error:
            raise ValueError(f"the config {spec.get('config')!r} does not build a {spec['class']}: {error}") from error


def _variation(values: tf.Tensor) -> tf.Tensor:
    """Σ_i (v_i − mean v)² over the last axis."""
    return tf.reduce_sum(tf.square(values - tf.reduce_mean(values, axis=-1, keepdims=True)), axis=-1)
